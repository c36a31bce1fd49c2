//! What holds of users, key pairs, sessions and policies over every engine.

use onex_db::accounts::{PolicyRow, Secret, SecretChange, Session, User, UserChange};
use onex_db::{Db, Error};

fn user(id: &str) -> User {
    User {
        user_id: id.to_owned(),
        username: format!("name-{id}"),
        status: "actived".to_owned(),
        nickname: "Ünï ☃".to_owned(),
        password: "$argon2id$hash".to_owned(),
        email: "a@b.c".to_owned(),
        phone: "123456".to_owned(),
        created_at: 1,
        updated_at: 2,
    }
}

fn secret(user: &str, name: &str) -> Secret {
    Secret {
        user_id: user.to_owned(),
        name: name.to_owned(),
        secret_id: format!("{user}-{name}"),
        secret_key: "v1.hidden".to_owned(),
        status: 1,
        expires: 7,
        description: "d".to_owned(),
        created_at: 1,
        updated_at: 2,
    }
}

fn session(user: &str, id: &str) -> Session {
    let refresh_id = format!("{id}-1");
    Session { session_id: id.to_owned(), user_id: user.to_owned(), refresh_id, expires: 100, created_at: 1 }
}

fn policy(ptype: &str, words: [&str; 4]) -> PolicyRow {
    PolicyRow { id: 0, ptype: ptype.to_owned(), words: words.map(str::to_owned) }
}

async fn with_users(db: &Db, ids: &[&str]) {
    let accounts = db.accounts();
    accounts.prepare().await.unwrap();
    accounts.prepare().await.unwrap();
    let mut change = accounts.change().await.unwrap();
    for id in ids {
        change.add_user(&user(id)).await.unwrap();
    }
    change.commit().await.unwrap();
}

pub async fn users_are_found_by_id_and_name_and_changed_in_part(db: &Db) {
    with_users(db, &["a", "b", "c"]).await;
    let accounts = db.accounts();
    let found = accounts.user_named("name-b").await.unwrap().unwrap();
    assert_eq!((found.user.clone(), found.secrets), (user("b"), 0));
    assert!(!format!("{found:?}").contains("argon2id"));
    let mut change = accounts.change().await.unwrap();
    let new = UserChange { username: Some("new".to_owned()), email: Some(String::new()), ..UserChange::default() };
    assert!(change.change_user("b", &new, 9).await.unwrap());
    assert!(!change.change_user("nobody", &new, 9).await.unwrap());
    assert!(change.set_password("b", "$argon2id$hash", "next", 9).await.unwrap());
    assert!(!change.set_password("b", "$argon2id$hash", "late", 9).await.unwrap());
    change.commit().await.unwrap();
    let expected = User {
        username: "new".to_owned(),
        email: String::new(),
        password: "next".to_owned(),
        updated_at: 9,
        ..user("b")
    };
    assert_eq!(accounts.user("b").await.unwrap().unwrap().user, expected);
    assert_eq!(accounts.user_named("name-b").await.unwrap(), None);
    accounts.rehash("b", "next", "rehashed").await.unwrap();
    accounts.rehash("b", "next", "again").await.unwrap();
    assert_eq!(accounts.user("b").await.unwrap().unwrap().user.password, "rehashed");
    let page = accounts.users(1, 1).await.unwrap();
    assert_eq!((page.rows[0].user.user_id.as_str(), page.rows.len(), page.total), ("b", 1, 3));
}

pub async fn a_taken_name_is_told_and_the_change_is_not_made(db: &Db) {
    with_users(db, &["a"]).await;
    let before = db.accounts().revisions().await.unwrap();
    let mut change = db.accounts().change().await.unwrap();
    change.add_secret(&secret("a", "s")).await.unwrap();
    let twice = User { user_id: "b".to_owned(), ..user("a") };
    assert!(matches!(change.add_user(&twice).await, Err(Error::Taken(_))));
    drop(change);
    assert_eq!(db.accounts().secret("a", "s").await.unwrap(), None);
    assert_eq!(db.accounts().revisions().await.unwrap(), before);
}

pub async fn a_user_goes_with_keys_and_sessions(db: &Db) {
    with_users(db, &["a", "b"]).await;
    let accounts = db.accounts();
    let mut change = accounts.change().await.unwrap();
    for one in [secret("a", "s"), secret("b", "s")] {
        change.add_secret(&one).await.unwrap();
    }
    change.commit().await.unwrap();
    accounts.begin_session(&session("a", "x"), 9).await.unwrap();
    let mut change = accounts.change().await.unwrap();
    assert!(change.remove_user("a").await.unwrap() && !change.remove_user("a").await.unwrap());
    change.commit().await.unwrap();
    assert_eq!(accounts.key_holder("a-s").await.unwrap(), None);
    assert_eq!(accounts.session("x").await.unwrap(), None);
    assert_eq!(accounts.key_holder("b-s").await.unwrap().unwrap().secret, secret("b", "s"));
}

pub async fn key_pairs_are_of_one_user(db: &Db) {
    with_users(db, &["a", "b"]).await;
    let accounts = db.accounts();
    let mut change = accounts.change().await.unwrap();
    for name in ["one", "two", "three"] {
        change.add_secret(&secret("a", name)).await.unwrap();
    }
    assert!(matches!(change.add_secret(&secret("a", "one")).await, Err(Error::Taken(_))));
    drop(change);
    let mut change = accounts.change().await.unwrap();
    for name in ["one", "two", "three"] {
        change.add_secret(&secret("a", name)).await.unwrap();
    }
    assert_eq!(change.count_secrets("a").await.unwrap(), 3);
    let off = SecretChange { status: Some(0), ..SecretChange::default() };
    assert!(change.change_secret("a", "two", &off, 9).await.unwrap());
    assert!(!change.change_secret("b", "two", &off, 9).await.unwrap());
    assert!(!change.remove_secret("b", "one").await.unwrap() && change.remove_secret("a", "one").await.unwrap());
    change.commit().await.unwrap();
    let page = accounts.secrets("a", 0, 1).await.unwrap();
    assert_eq!((page.rows[0].name.as_str(), page.total), ("three", 2));
    let changed = Secret { status: 0, updated_at: 9, ..secret("a", "two") };
    assert_eq!(accounts.secret("a", "two").await.unwrap(), Some(changed));
    assert_eq!(accounts.secrets("b", 0, 9).await.unwrap().total, 0);
    assert_eq!(accounts.user("a").await.unwrap().unwrap().secrets, 2);
}

pub async fn a_refresh_token_is_spent_once_and_the_oldest_session_makes_room(db: &Db) {
    with_users(db, &["a"]).await;
    let accounts = db.accounts();
    for id in ["x", "y", "z"] {
        accounts.begin_session(&session("a", id), 2).await.unwrap();
    }
    assert_eq!(accounts.session("x").await.unwrap(), None);
    assert!(accounts.spend("y", "y-1", "y-2", 200, 5).await.unwrap());
    assert!(!accounts.spend("y", "y-1", "y-3", 200, 5).await.unwrap());
    let holder = accounts.session("y").await.unwrap().unwrap();
    assert_eq!((holder.session.refresh_id.as_str(), holder.session.expires), ("y-2", 200));
    assert_eq!(holder.user_status, "actived");
    assert_eq!(accounts.forget_sessions(150).await.unwrap(), 1);
    let mut change = accounts.change().await.unwrap();
    change.end_session("nothing").await.unwrap();
    change.end_sessions("a").await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(accounts.session("y").await.unwrap(), None);
}

pub async fn policies_are_there_once_and_each_change_is_counted(db: &Db) {
    with_users(db, &[]).await;
    let accounts = db.accounts();
    let start = accounts.revisions().await.unwrap();
    let lines = [
        policy("p", ["a", "*", "x", "allow"]),
        policy("g", ["a", "admin", "", ""]),
        policy("g", ["b", "admin", "", ""]),
    ];
    let mut numbers = Vec::new();
    let mut change = accounts.change().await.unwrap();
    for line in &lines {
        numbers.push(change.add_policy(line).await.unwrap());
    }
    assert_eq!(change.revision, start.accounts + 1);
    change.commit().await.unwrap();
    let now = accounts.revisions().await.unwrap();
    assert_eq!((now.accounts, now.policies), (start.accounts + 1, start.policies + 3));
    let mut change = accounts.change().await.unwrap();
    assert!(matches!(change.add_policy(&lines[1]).await, Err(Error::Taken(_))));
    drop(change);
    let page = accounts.policies(Some("a"), 1, 5).await.unwrap();
    assert_eq!((page.rows, page.total), (vec![PolicyRow { id: numbers[1], ..lines[1].clone() }], 2));
    assert_eq!(accounts.policies(None, 0, 1).await.unwrap().total, 3);
    let mut change = accounts.change().await.unwrap();
    let gone = change.remove_policy(numbers[0]).await.unwrap();
    assert_eq!(gone, Some(PolicyRow { id: numbers[0], ..lines[0].clone() }));
    assert_eq!(change.remove_policy(numbers[0]).await.unwrap(), None);
    assert_eq!(change.remove_policies_of("a").await.unwrap().len(), 1);
    change.commit().await.unwrap();
    assert_eq!(accounts.all_policies().await.unwrap().len(), 1);
}

pub async fn changes_are_made_one_after_the_other(db: &Db) {
    with_users(db, &["a"]).await;
    let start = db.accounts().revisions().await.unwrap().accounts;
    let all = (0..20).map(|number| {
        let accounts = db.accounts();
        tokio::spawn(async move {
            let mut change = accounts.change().await.unwrap();
            if change.count_secrets("a").await.unwrap() < 10 {
                change.add_secret(&secret("a", &format!("s{number}"))).await.unwrap();
            }
            let revision = change.revision;
            change.commit().await.unwrap();
            revision
        })
    });
    let mut revisions = futures::future::join_all(all).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    revisions.sort_unstable();
    assert_eq!(revisions, (start + 1..=start + 20).collect::<Vec<_>>());
    assert_eq!(db.accounts().secrets("a", 0, 100).await.unwrap().total, 10);
}
