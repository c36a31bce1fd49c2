//! Where a value stands, at no cost as long as nobody asks.

/// A path from the root of an object, as a list of steps that lies on the stack.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself, which stands at this path; empty for a whole object.
    Root(&'a str),
    /// A field that the schema names.
    Field(&'a Path<'a>, &'a str),
    /// A field that the schema does not name: the key of a map.
    Key(&'a Path<'a>, &'a str),
    /// An item of a list.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// As the validator of OpenAPI schemas writes it, where keys of maps look like fields: `spec.labels.app`. It knows
    /// nothing of where the root stands.
    pub fn dotted(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, true);
        text
    }

    /// As fields are written everywhere else: `spec.labels[app]`. The root of an object has no name at all.
    pub fn field(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, false);
        if text.is_empty() { "<nil>".to_owned() } else { text }
    }

    /// `dotted`, below where the root stands.
    pub fn dotted_field(&self) -> String {
        below(self.root(), &self.dotted())
    }

    /// Where the root stands.
    pub fn root(&self) -> &str {
        match self {
            Self::Root(at) => at,
            Self::Field(parent, _) | Self::Key(parent, _) | Self::Index(parent, _) => parent.root(),
        }
    }

    fn write(&self, text: &mut String, dotted: bool) {
        let dot = |text: &mut String| {
            if !text.is_empty() {
                text.push('.');
            }
        };
        match self {
            Self::Root(at) => {
                if !dotted {
                    text.push_str(at);
                }
            }
            Self::Field(parent, name) => {
                parent.write(text, dotted);
                dot(text);
                text.push_str(name);
            }
            Self::Key(parent, key) => {
                parent.write(text, dotted);
                if dotted {
                    dot(text);
                    text.push_str(key);
                } else {
                    text.push('[');
                    text.push_str(key);
                    text.push(']');
                }
            }
            Self::Index(parent, index) => {
                parent.write(text, dotted);
                text.push_str(&format!("[{index}]"));
            }
        }
    }
}

/// The field `name` below `root`; no name at all when both are empty.
pub fn below(root: &str, name: &str) -> String {
    match (root.is_empty(), name.is_empty()) {
        (true, true) => "<nil>".to_owned(),
        (true, false) => name.to_owned(),
        (false, true) => root.to_owned(),
        (false, false) => format!("{root}.{name}"),
    }
}
