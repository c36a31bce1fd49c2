//! Whether a text looks like an OCI image reference: `[registry[:port]/]path[:tag][@algorithm:digest]`.

/// Why `reference` does not look like an image reference.
///
/// ```
/// use onex_crds::image::not_a_reference;
/// assert_eq!(not_a_reference("registry.example:5000/onexstack/onex-toyblc-amd64:v1.0.0"), None);
/// assert!(not_a_reference("Not An Image").is_some());
/// ```
pub fn not_a_reference(reference: &str) -> Option<&'static str> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Some("the digest must be an algorithm, a colon and at least 32 hexadecimal digits");
    }
    let (name, tag) = split_tag(rest);
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Some("the tag must be 1 to 128 letters, digits, '_', '.' or '-', and not start with '.' or '-'");
    }
    let (registry, path) = split_registry(name);
    if registry.is_some_and(|registry| !is_registry(registry)) {
        return Some("the registry must be a host name with an optional port");
    }
    if path.len() > 255 || !path.split('/').all(is_path_word) {
        return Some("the path must be lower case words separated by '/'");
    }
    None
}

/// The tag follows the last colon, unless that colon belongs to the registry's port.
fn split_tag(rest: &str) -> (&str, Option<&str>) {
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    }
}

/// The first word is a registry when it could not be a word of a path, as container tools decide it.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => (Some(first), path),
        _ => (None, name),
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let host_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('-')
            && !word.ends_with('-')
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(host_word) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_path_word(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = word.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if plain(*first) && plain(*last))
        && bytes.iter().all(|b| plain(*b) || b"._-".contains(b))
        && !word.contains("..")
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::not_a_reference;

    #[test]
    fn references_people_write_are_accepted() {
        let digest = format!("toyblc@sha256:{}", "0a".repeat(32));
        for good in [
            "toyblc",
            "onexstack/toyblc:v1",
            "localhost/toyblc",
            "localhost:5000/a/b:x",
            "ccr.ccs.tencentyun.com/onexstack/onex-toyblc-amd64:v1.0.0",
            "a__b/c-d.e",
            &digest,
        ] {
            assert_eq!(not_a_reference(good), None, "{good}");
        }
    }

    #[test]
    fn what_no_registry_could_serve_is_refused() {
        for bad in [
            "",
            " ",
            "Toyblc",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a:b:c",
            "a@sha256:00",
            "a@",
            "a..b",
            "h:99999/a",
            "-.x/a",
            "a b",
        ] {
            assert!(not_a_reference(bad).is_some(), "{bad}");
        }
    }
}
