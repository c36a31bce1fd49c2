//! Other people's clients and test suites, as they are published, against `onex up`.
//!
//! What is ours of them is in `e2e/suites`, each in its own language; `.ci/prepare tests` installs the rest. What takes too long
//! for every run is a script beside it, such as `e2e/suites/go/suites.sh`, which runs controller-runtime's own tests.

mod go;
mod helm;
mod javascript;
mod python;
