//! Which local program stands for an image.

use crate::Settings;

/// What runs instead of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Executable and first arguments. Empty: the container's own command is run.
    pub(crate) words: Vec<String>,
    /// Our own blockchain node, which keeps a chain and answers `/healthz`.
    pub(crate) toyblc: bool,
}

/// The program for `image`, or `None` when nobody said what it is on this machine.
pub(crate) fn find(settings: &Settings, image: &str) -> Option<Program> {
    let mapped = settings
        .images
        .iter()
        .filter(|(pattern, _)| matches(pattern, image) || matches(pattern, repository(image)))
        .max_by_key(|(pattern, _)| pattern.len());
    let toyblc = is_toyblc(image);
    match mapped {
        Some((_, words)) => Some(Program { words: words.clone(), toyblc }),
        None if toyblc => Some(Program { words: settings.toyblc.clone(), toyblc }),
        None => None,
    }
}

/// Whether `image` is our own blockchain node.
pub(crate) fn is_toyblc(image: &str) -> bool {
    base_name(image).starts_with("onex-toyblc")
}

/// The image without tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // A colon before the last slash is the port of a registry.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => image,
    }
}

fn base_name(image: &str) -> &str {
    let repository = repository(image);
    repository.rsplit_once('/').map_or(repository, |(_, name)| name)
}

/// Whether `pattern`, in which `*` stands for any characters, is the whole of `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(images: &[(&str, &str)]) -> Settings {
        Settings {
            toyblc: vec!["/usr/bin/onex".into(), "toyblc".into()],
            images: images
                .iter()
                .map(|(pattern, program)| ((*pattern).to_owned(), vec![(*program).to_owned()]))
                .collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn our_own_image_is_known_by_its_base_name() {
        for (image, known) in [
            ("onex-toyblc", true),
            ("ccr.ccs.tencentyun.com/onexstack/onex-toyblc-amd64:v0.1.0", true),
            ("localhost:5000/onex-toyblc@sha256:00", true),
            ("localhost:5000/onex-toyblc", true),
            ("onex-toyblc/nginx", false),
            ("my-onex-toyblc", false),
            ("nginx:onex-toyblc", false),
        ] {
            let found = find(&settings(&[]), image);
            assert_eq!(found.is_some_and(|program| program.toyblc), known, "{image}");
        }
    }

    #[test]
    fn an_image_that_nobody_mapped_is_unknown() {
        assert_eq!(find(&settings(&[("busybox", "/bin/sh")]), "nginx"), None);
    }

    #[test]
    fn the_longest_pattern_wins() {
        let settings = settings(&[("*", "any"), ("docker.io/*", "docker"), ("docker.io/busybox:1", "one")]);
        for (image, program) in [
            ("nginx", "any"),
            ("docker.io/nginx:2", "docker"),
            ("docker.io/busybox:1", "one"),
            ("docker.io/busybox:2", "docker"),
        ] {
            assert_eq!(find(&settings, image).unwrap().words, [program], "{image}");
        }
    }

    #[test]
    fn a_pattern_without_tag_stands_for_every_tag() {
        assert!(find(&settings(&[("busybox", "sh")]), "busybox:1.36").is_some());
        assert!(find(&settings(&[("busybox:1", "sh")]), "busybox:2").is_none());
    }

    #[test]
    fn stars_match_any_characters_in_order() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*b", "b", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
