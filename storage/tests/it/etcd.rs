//! What only etcd can do, and what it does when a part of it is away.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcd_client::{Client, Permission};
use futures::StreamExt;
use onex_daemon::pki::Authority;
use onex_storage::{Error, Etcd, Expected, Key, Page, Revision, Settings, Storage};
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;

const LONG: Duration = Duration::from_secs(60);

/// A storage over all members, once they answer.
pub async fn open(cluster: &Cluster, settings: &Settings) -> Arc<dyn Storage> {
    let deadline = Instant::now() + LONG;
    loop {
        match Etcd::open(&cluster.members(), settings).await {
            Ok(storage) => return Arc::new(storage),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn create(storage: &Arc<dyn Storage>, key: &str) -> Result<Revision, Error> {
    storage.put(&Key::from(key), Bytes::from("x"), Expected::Absent).await
}

/// Tries again for as long as the storage is away.
async fn create_in_time(storage: &Arc<dyn Storage>, key: &str) -> Revision {
    let deadline = Instant::now() + LONG;
    loop {
        match create(storage, key).await {
            Ok(revision) => return revision,
            Err(Error::Unavailable(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            // It had happened, though nobody could say so.
            Err(Error::Conflict { current: Some(entry) }) => return entry.revision,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_members_any_may_die_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    let over = Arc::new(AtomicBool::new(false));
    let writers = (0..4).map(|writer| {
        let (storage, over) = (storage.clone(), over.clone());
        tokio::spawn(async move {
            let (mut acknowledged, mut refused) = (BTreeMap::new(), 0);
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("/w{writer}/{number:06}");
                match create(&storage, &key).await {
                    Ok(revision) => drop(acknowledged.insert(key, revision)),
                    Err(Error::Unavailable(_)) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (acknowledged, refused)
        })
    });
    let writers: Vec<_> = writers.collect();
    let since = storage.newest().await.unwrap();
    for member in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.kill(member);
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.start(member);
        // The others must not die before it is back.
        create_in_time(&storage, &format!("/between/{member}")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        let (mine, refused) = writer.await.unwrap();
        assert!(mine.len() > 100 && refused < 40, "{} acknowledged, {refused} refused", mine.len());
        acknowledged.extend(mine);
    }
    let there = storage.list(Page::all("/w")).await.unwrap();
    let there: BTreeMap<_, _> =
        there.entries.into_iter().map(|entry| (entry.key.to_string(), entry.revision)).collect();
    for (key, revision) in &acknowledged {
        assert_eq!(there.get(key), Some(revision), "{key}");
    }
    // And who begins to watch where it began sees each of them once.
    let mut changes = storage.watch(&"/w".into(), since).await.unwrap();
    let mut seen = BTreeMap::new();
    while seen.len() < there.range("/w".to_owned()..).filter(|(_, revision)| **revision > since).count() {
        for change in timeout(LONG, changes.next()).await.unwrap().unwrap().unwrap().changes {
            assert_eq!(seen.insert(change.key.to_string(), change.revision), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_stands_still_is_told_of_in_time_and_found_again() {
    let cluster = Cluster::of(1, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    let first = create(&storage, "/a").await.unwrap();
    let mut changes = storage.watch(&"/".into(), first).await.unwrap();
    cluster.signal(0, "STOP");
    let asked = Instant::now();
    let key = Key::from("/a");
    let (read, newest, written) = tokio::join!(storage.get(&key), storage.newest(), create(&storage, "/b"));
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(matches!(newest, Err(Error::Unavailable(_))), "{newest:?}");
    assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
    let ended = timeout(Duration::from_secs(20), changes.next()).await.expect("the watch ends");
    assert!(matches!(ended, Some(Err(Error::Unavailable(_)))), "{ended:?}");
    cluster.signal(0, "CONT");
    let revision = create_in_time(&storage, "/c").await;
    assert!(storage.newest().await.unwrap() >= revision);
    let mut changes = storage.watch(&"/".into(), first).await.unwrap();
    let run = timeout(LONG, changes.next()).await.unwrap().unwrap().unwrap();
    assert!(run.changes[0].key.as_str() > "/a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_there_for_a_while_goes_by_itself() {
    let cluster = Cluster::of(1, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    let lifetime = Some(Duration::from_secs(2));
    let mut last = Revision(0);
    for number in 0..5 {
        let key = Key::from(format!("/passing/{number}"));
        last = storage.put_for(&key, Bytes::from("x"), Expected::Absent, lifetime).await.unwrap();
    }
    create(&storage, "/staying").await.unwrap();
    let mut changes = storage.watch(&"/".into(), last).await.unwrap();
    let mut gone = 0;
    while gone < 5 {
        let run = timeout(LONG, changes.next()).await.unwrap().unwrap().unwrap();
        gone += run.changes.iter().filter(|change| change.value.is_none()).count();
    }
    assert_eq!(storage.list(Page::all("/")).await.unwrap().entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_gone_before_its_time_keeps_nobody_from_writing() {
    let cluster = Cluster::of(1, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    let lifetime = Some(Duration::from_secs(3600));
    let put = async |key: &str| storage.put_for(&key.into(), Bytes::from("x"), Expected::Absent, lifetime).await;
    put("/a").await.unwrap();
    let mut others = Client::connect([format!("http://{}", cluster.members()[0])], None).await.unwrap();
    for lease in others.leases().await.unwrap().leases() {
        others.lease_revoke(lease.id()).await.unwrap();
    }
    assert_eq!(storage.get(&"/a".into()).await.unwrap(), None, "it goes with its lease");
    put("/b").await.unwrap();
    put("/c").await.unwrap();
    assert_eq!(others.leases().await.unwrap().leases().len(), 1, "and the new one is shared again");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_no_text_are_passed_over_wherever_a_page_ends() {
    let cluster = Cluster::of(1, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    let mut others = Client::connect([format!("http://{}", cluster.members()[0])], None).await.unwrap();
    for key in [&b"/l/\xff0"[..], b"/l/a\xff", b"/l/a\xff1", b"/l/c\xff"] {
        others.put(key, "not ours", None).await.unwrap();
    }
    for key in ["/l/a", "/l/b", "/l/c"] {
        create(&storage, key).await.unwrap();
    }
    for limit in 1..8 {
        let mut keys = Vec::new();
        loop {
            let after = keys.last().cloned();
            let page = Page { limit: Some(limit), after, ..Page::all("/l/") };
            let listing = timeout(LONG, storage.list(page)).await.expect("a page has an end").unwrap();
            let is_all = listing.entries.len() < limit;
            keys.extend(listing.entries.into_iter().map(|entry| entry.key));
            if is_all {
                break;
            }
        }
        assert_eq!(keys, ["/l/a".into(), "/l/b".into(), "/l/c".into()], "{limit} at a time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_forgotten_in_time_by_one_of_those_who_use_it() {
    let cluster = Cluster::of(1, &[]);
    let settings = Settings { history_seconds: 1, ..Settings::default() };
    let (one, other) = (open(&cluster, &settings).await, open(&cluster, &settings).await);
    let first = create(&one, "/a").await.unwrap();
    let deadline = Instant::now() + LONG;
    let oldest = loop {
        match other.list(Page { at: Some(first), ..Page::all("/") }).await {
            Err(Error::Compacted { oldest }) => break oldest,
            other => assert!(other.is_ok() && Instant::now() < deadline, "{other:?}"),
        }
        create_in_time(&one, &format!("/b/{:?}", Instant::now())).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(oldest > first);
    assert!(one.list(Page { at: Some(one.newest().await.unwrap()), ..Page::all("/") }).await.is_ok());
    let mut too_early = other.watch(&"/".into(), first).await.unwrap();
    assert!(matches!(timeout(LONG, too_early.next()).await.unwrap(), Some(Err(Error::Compacted { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_etcd_is_told_with_its_bound() {
    let cluster = Cluster::of(1, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    let refused = storage.put(&"/a".into(), large, Expected::Absent).await.unwrap_err();
    assert!(matches!(refused, Error::Size { what: "value", bytes: 2_097_152, limit: 1_572_864 }), "{refused}");
    // Many that are not add up to more than one answer.
    let mebi = Bytes::from(vec![b'x'; 1 << 20]);
    for number in 0..20 {
        storage.put(&Key::from(format!("/l/{number:02}")), mebi.clone(), Expected::Absent).await.unwrap();
    }
    let listing = storage.list(Page::all("/l/")).await.unwrap();
    assert!(listing.entries.len() == 20 && listing.entries.iter().all(|entry| entry.value == mebi));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_read_in_pieces_of_one_state() {
    let cluster = Cluster::of(1, &[]);
    let storage = open(&cluster, &Settings::default()).await;
    for number in 0..700 {
        create(&storage, &format!("/l/{number:04}")).await.unwrap();
    }
    let listing = storage.list(Page { limit: Some(650), ..Page::all("/l/") }).await.unwrap();
    assert_eq!((listing.entries.len(), listing.remaining), (650, 50));
    assert!(listing.entries.is_sorted_by(|one, other| one.key < other.key));
    let rest = Page { after: Some(listing.entries[649].key.clone()), at: Some(listing.revision), ..Page::all("/l/") };
    assert_eq!(storage.list(rest).await.unwrap().entries.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_may_ask_for_tls_and_for_a_user() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let authority = Authority::open_or_create(directory.path()).unwrap();
    let server = authority.issue_server(&["127.0.0.1"]).unwrap();
    let client = authority.issue_client("somebody", "etcd").unwrap();
    let (ca, certificate, key) = (
        file("ca.pem", authority.certificate_pem()),
        file("client.pem", &client.certificate_pem()),
        file("client-key.pem", &client.key_pem()),
    );
    let (server_certificate, server_key) =
        (file("server.pem", &server.certificate_pem()), file("server-key.pem", &server.key_pem()));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (trusted, own, own_key) = (text(&ca), text(&server_certificate), text(&server_key));
    let arguments = ["--cert-file", &own, "--key-file", &own_key, "--client-cert-auth", "--trusted-ca-file", &trusted];
    let cluster = Cluster::of(1, &arguments);
    let members = cluster.members();
    let tls = Settings { etcd_ca_file: ca, etcd_cert_file: certificate, etcd_key_file: key, ..Settings::default() };
    create(&open(&cluster, &tls).await, "/a").await.unwrap();
    for settings in [Settings::default(), Settings { etcd_cert_file: Default::default(), ..tls.clone() }] {
        let refused = Etcd::open(&members, &settings).await.err().unwrap();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    }

    let options = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(authority.certificate_pem()))
        .identity(etcd_client::Identity::from_pem(client.certificate_pem(), client.key_pem()));
    let options = etcd_client::ConnectOptions::new().with_tls(options);
    let url = format!("https://{}", members[0]);
    let mut client = Client::connect([url], Some(options)).await.unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("onex", "word", None).await.unwrap();
    client.role_add("onex").await.unwrap();
    for (from, to) in [("/registry/", "/registry0"), ("compact_rev_key", "compact_rev_kez")] {
        let permission = Permission::read_write(from).with_range_end(to);
        client.role_grant_permission("onex", permission).await.unwrap();
    }
    client.user_grant_role("onex", "onex").await.unwrap();
    client.auth_enable().await.unwrap();

    let refused = Etcd::open(&members, &tls).await.err().unwrap();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    let settings = Settings { etcd_user: "onex".to_owned(), etcd_password_file: file("password", "word\n"), ..tls };
    let storage = open(&cluster, &settings).await;
    create(&storage, "/registry/a").await.unwrap();
    let refused = create(&storage, "/elsewhere/a").await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    let missing = Settings { etcd_password_file: "/nowhere".into(), ..settings };
    let refused = Etcd::open(&members, &missing).await.err().unwrap();
    assert!(matches!(refused, Error::File { .. }), "{refused}");
}
