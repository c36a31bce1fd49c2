//! The words OneX writes on objects (labels, annotations, finalizers), and which words Kubernetes lets anyone write.

/// Label on a Miner: the MinerSet that selects it. Forced into selector and template by admission.
pub const LABEL_MINERSET: &str = "apps.onex.io/minerset";
/// Label on a Miner and on its Pod: the name of the MinerSet, or of the Miner itself when it has no set.
/// The genesis Service selects by it.
pub const LABEL_MINERSET_NAME: &str = "apps.onex.io/minerset-name";
/// Label on a keystore ConfigMap, a genesis Miner, its Pod and Service, and a MinerSet: the Chain it belongs to. It only
/// describes; whether a Miner is a genesis is decided by its owner. The genesis Service selects by it, too.
pub const LABEL_CHAIN_NAME: &str = "apps.onex.io/chain-name";
/// Label of the MinerDeployment that does not exist yet.
pub const LABEL_DEPLOYMENT_NAME: &str = "apps.onex.io/deployment-name";
/// Label compared with the `watch_filter` of the controllers, so that several of them can share a cluster.
pub const LABEL_WATCH_FILTER: &str = "apps.onex.io/watch-filter";

/// Label on a Job: the CronJob that made it.
pub const LABEL_CRONJOB_NAME: &str = "batch.onex.io/cronjob-name";
/// Label on a Pod: the Job that it does.
pub const LABEL_JOB_NAME: &str = "batch.onex.io/job-name";
/// Label on a Pod: the uid of the Job that it does. The Job finds its Pods by it.
pub const LABEL_JOB_UID: &str = "batch.onex.io/job-uid";

/// Annotation on a Job: the time of the schedule that it was made for, as RFC 3339 has it.
pub const ANNOTATION_SCHEDULED: &str = "batch.onex.io/cronjob-scheduled-timestamp";
/// Annotation on a Pod: the namespace of its Miner.
pub const ANNOTATION_MINER_NAMESPACE: &str = "apps.onex.io/miner-namespace";
/// Annotation on a Pod: the name of its Miner.
pub const ANNOTATION_MINER: &str = "apps.onex.io/miner";
/// Annotation on a Pod: the kind of its Miner's controller.
pub const ANNOTATION_OWNER_KIND: &str = "apps.onex.io/owner-kind";
/// Annotation on a Pod: the name of its Miner's controller.
pub const ANNOTATION_OWNER_NAME: &str = "apps.onex.io/owner-name";
/// Annotation whose presence stops controllers from acting on the object.
pub const ANNOTATION_PAUSED: &str = "apps.onex.io/paused";
/// Annotation on a Miner whose presence makes it go first when its set shrinks.
pub const ANNOTATION_DELETE_MINER: &str = "apps.onex.io/delete-miner";
/// Annotation on a MinerSet whose presence stops it from growing.
pub const ANNOTATION_DISABLE_MINER_CREATE: &str = "apps.onex.io/disable-miner-create";
/// Annotation on a MinerSet; with the value `true`, DELETE is refused.
pub const ANNOTATION_DELETION_PROTECTION: &str = "apps.onex.io/deletion-protection";
/// Annotation on a Miner: the processor share of its type, as a quantity.
pub const ANNOTATION_CPU: &str = "apps.onex.io/vCPU";
/// Annotation on a Miner: the memory of its type, as a quantity.
pub const ANNOTATION_MEMORY: &str = "apps.onex.io/memoryMb";
/// Annotation on a Pod: which settings of its Miner it was made from, so that a change of them replaces it.
pub const ANNOTATION_MADE_FROM: &str = "apps.onex.io/made-from";
/// Annotation on a Pod: from which settings of its Chain it was made. On a Miner of a set: which of them it is to have.
pub const ANNOTATION_CHAIN_SETTINGS: &str = "apps.onex.io/chain-settings";
/// Annotation on a Miner of a set: which of its labels and annotations are the template's, so that they go with those of it.
pub const ANNOTATION_FROM_TEMPLATE: &str = "apps.onex.io/from-template";
/// Annotation whose presence keeps an unhealthy Miner from being replaced.
pub const ANNOTATION_SKIP_REMEDIATION: &str = "apps.onex.io/skip-remediation";

/// Finalizer of a Chain.
pub const FINALIZER_CHAIN: &str = "chain.onex.io/finalizer";
/// Finalizer of a Miner: its Pod is gone before it is.
pub const FINALIZER_MINER: &str = "miner.onex.io/finalizer";
/// Finalizer of a Job whose Pods live in another cluster: they are gone before it is.
pub const FINALIZER_JOB: &str = "job.onex.io/finalizer";
/// Finalizer of a MinerSet. Reserved: children go by owner reference, so nothing adds it.
pub const FINALIZER_MINERSET: &str = "minerset.onex.io/finalizer";

/// The longest label value, and the longest DNS label.
pub const LABEL_LENGTH: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_LENGTH: usize = 253;

/// Why `name` is not an RFC 1123 subdomain, in the words of Kubernetes.
pub fn not_a_subdomain(name: &str) -> Option<String> {
    if name.len() > SUBDOMAIN_LENGTH {
        return Some(format!("must be no more than {SUBDOMAIN_LENGTH} characters"));
    }
    (!name.split('.').all(is_dns_word)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned()
    })
}

/// Why `name` is not an RFC 1123 label, in the words of Kubernetes.
pub fn not_a_label(name: &str) -> Option<String> {
    if name.len() > LABEL_LENGTH {
        return Some(format!("must be no more than {LABEL_LENGTH} characters"));
    }
    (!is_dns_word(name)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .to_owned()
    })
}

/// Why `name` cannot be the name of a Service (an RFC 1035 label), in the words of Kubernetes.
pub fn not_a_service_name(name: &str) -> Option<String> {
    if name.len() > LABEL_LENGTH {
        return Some(format!("must be no more than {LABEL_LENGTH} characters"));
    }
    (!is_dns_word(name) || name.starts_with(|first: char| first.is_ascii_digit())).then(|| {
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
         is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            .to_owned()
    })
}

/// Why `value` cannot be the value of a label, in the words of Kubernetes.
pub fn not_a_label_value(value: &str) -> Option<String> {
    if value.len() > LABEL_LENGTH {
        return Some(format!("must be no more than {LABEL_LENGTH} characters"));
    }
    (!value.is_empty() && !is_word(value)).then(|| {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
         and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .to_owned()
    })
}

/// Why `key` cannot be the key of a label or annotation, in the words of Kubernetes.
pub fn not_a_qualified_name(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    match prefix {
        Some("") => return Some("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            if let Some(why) = not_a_subdomain(prefix) {
                return Some(format!("prefix part {why}"));
            }
        }
        None => {}
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > LABEL_LENGTH {
        return Some(format!("name part must be no more than {LABEL_LENGTH} characters"));
    }
    (!is_word(name)).then(|| {
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            .to_owned()
    })
}

/// `name` as the value of a label: itself where Kubernetes allows it, else `hash_<…>_z`, which cannot be a name.
///
/// ```
/// use onex_crds::names::label_value;
/// assert_eq!(label_value("genesis"), "genesis");
/// assert!(label_value(&"a".repeat(64)).starts_with("hash_"));
/// ```
pub fn label_value(name: &str) -> String {
    match not_a_label_value(name) {
        None => name.to_owned(),
        Some(_) => format!("hash_{}_z", base64_url(fnv32a(name.as_bytes()))),
    }
}

fn is_dns_word(word: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    is_made_of(word, inner, |byte| inner(byte) || byte == b'-') && word.len() <= SUBDOMAIN_LENGTH
}

fn is_word(word: &str) -> bool {
    is_made_of(word, |byte| byte.is_ascii_alphanumeric(), |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_made_of(word: &str, ends: impl Fn(u8) -> bool, inside: impl Fn(u8) -> bool) -> bool {
    let bytes = word.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => ends(*first) && ends(*last) && bytes.iter().all(|byte| inside(*byte)),
        _ => false,
    }
}

fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The four bytes of `number` as unpadded URL-safe base64: six characters.
fn base64_url(number: u32) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 32 bits become six digits of six bits; the last one is filled up with zeros.
    let bits = u64::from(number) << 4;
    (0..6).rev().map(|digit| char::from(DIGITS[((bits >> (digit * 6)) & 63) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subdomain_is_lower_case_words_with_dots() {
        for good in ["a", "genesis", "a.b", "1-2", &"a".repeat(253)] {
            assert_eq!(not_a_subdomain(good), None, "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".", "a/b", "ä", &"a".repeat(254)] {
            assert!(not_a_subdomain(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_label_has_no_dots_and_at_most_63_bytes() {
        assert_eq!(not_a_label(&"a".repeat(63)), None);
        assert!(not_a_label("a.b").is_some());
        assert!(not_a_label(&"a".repeat(64)).is_some());
    }

    #[test]
    fn a_service_name_begins_with_a_letter_and_has_no_dots() {
        for good in ["a", "a-1", &"a".repeat(63)] {
            assert_eq!(not_a_service_name(good), None, "{good}");
        }
        for bad in ["", "1a", "a.b", "-a", "a-", "A", &"a".repeat(64)] {
            assert!(not_a_service_name(bad).is_some(), "{bad}");
        }
    }

    /// In OneX a MinerSet had two finalizers, one for each of its two types in Go, of which neither was ever used.
    #[test]
    fn b35_every_kind_has_one_finalizer_of_its_own() {
        let finalizers = [FINALIZER_CHAIN, FINALIZER_MINER, FINALIZER_MINERSET];
        assert_eq!(std::collections::BTreeSet::from(finalizers).len(), finalizers.len());
        for finalizer in finalizers {
            assert_eq!(not_a_qualified_name(finalizer), None, "{finalizer}");
        }
    }

    #[test]
    fn a_label_value_may_be_empty_and_have_capitals() {
        for good in ["", "A", "S1.SMALL1", "a_b-c.d"] {
            assert_eq!(not_a_label_value(good), None, "{good}");
        }
        for bad in ["-a", "a-", "a/b", " ", &"a".repeat(64)] {
            assert!(not_a_label_value(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_qualified_name_may_have_a_prefix() {
        for good in ["a", "apps.onex.io/minerset", "A_b"] {
            assert_eq!(not_a_qualified_name(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A.b/c", "-"] {
            assert!(not_a_qualified_name(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_long_name_becomes_a_valid_label_value_of_its_own() {
        let (a, b) = (label_value(&"a".repeat(70)), label_value(&"b".repeat(70)));
        assert_ne!(a, b);
        assert_eq!(not_a_label_value(&a), None);
        // FNV-1a of nothing is its offset basis, 0x811c9dc5, which base64 writes as gRydxQ.
        assert_eq!(base64_url(fnv32a(b"")), "gRydxQ");
    }
}
