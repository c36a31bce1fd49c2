use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use onex_daemon::pki::{self, Authority, Error};

#[test]
fn an_authority_is_made_once_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("pki");
    let made = Authority::open_or_create(&dir).unwrap();
    let opened = Authority::open_or_create(&dir).unwrap();
    assert_eq!(made.certificate_pem(), opened.certificate_pem());
    assert_eq!(fs::metadata(dir.join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_issued_certificate_says_whose_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(directory.path()).unwrap();
    let identity = authority.issue_client("admin", "system:masters").unwrap();
    let subject = pki::subject(identity.certificate()).unwrap();
    assert_eq!((subject.common_name.as_str(), subject.organizations), ("admin", vec!["system:masters".to_owned()]));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let day = 24 * 60 * 60;
    assert!(subject.validity.contains(&now) && subject.validity.contains(&(now + 364 * day)));
    assert!(!subject.validity.contains(&(now - day)) && !subject.validity.contains(&(now + 366 * day)));
}

#[test]
fn a_certificate_without_its_key_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    Authority::open_or_create(directory.path()).unwrap();
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = Authority::open_or_create(directory.path()).unwrap_err();
    assert!(matches!(&error, Error::Halved(path) if path.ends_with("ca.key")), "{error}");
    assert!(!directory.path().join("ca.key").exists());
}

#[test]
fn a_first_start_that_was_killed_between_key_and_certificate_is_made_good_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    Authority::open_or_create(directory.path()).unwrap();
    let key = fs::read(directory.path().join("ca.key")).unwrap();
    fs::remove_file(directory.path().join("ca.crt")).unwrap();
    let again = Authority::open_or_create(directory.path()).unwrap();
    assert_eq!(fs::read(directory.path().join("ca.key")).unwrap(), key);
    assert_eq!(fs::read_to_string(directory.path().join("ca.crt")).unwrap(), again.certificate_pem());
}

#[test]
fn a_damaged_authority_is_named_and_never_replaced() {
    for damaged in ["ca.key", "ca.crt"] {
        let directory = tempfile::tempdir().unwrap();
        Authority::open_or_create(directory.path()).unwrap();
        fs::write(directory.path().join(damaged), "nonsense").unwrap();
        let error = Authority::open_or_create(directory.path()).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path, .. } if path.ends_with(damaged)), "{error}");
        assert_eq!(fs::read_to_string(directory.path().join(damaged)).unwrap(), "nonsense");
    }
}

#[test]
fn a_certificate_beside_another_authoritys_key_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::open_or_create(ours.path()).unwrap();
    Authority::open_or_create(theirs.path()).unwrap();
    fs::copy(theirs.path().join("ca.crt"), ours.path().join("ca.crt")).unwrap();
    assert!(matches!(Authority::open_or_create(ours.path()), Err(Error::Damaged { .. })));
}
