//! Black-box tests of OneX: a real kubectl, and nothing of ours, against a real `onex up`.
//!
//! There is no library here. The tests are in `tests/it`; start at its `world`, which starts the platform.
