//! Other people's clients and test suites, as they are published, against `onex up`.
//!
//! What is ours of them is in `e2e/suites`, each in its own language; `.ci/prepare tests` installs the rest.

mod go;
mod helm;
mod javascript;
mod python;
