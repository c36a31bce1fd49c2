//! Throws bytes at one target: `onex-fuzz CORPUS… [-max_total_time=600]`, with the target's name in `ONEX_FUZZ_TARGET`.

#![no_main]

#[path = "../targets.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target, World};

thread_local! {
    static WORLD: (World, Target) = {
        let wanted = std::env::var("ONEX_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|(name, _)| *name == wanted);
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        (World::new(), *target.unwrap_or_else(|| panic!("ONEX_FUZZ_TARGET is none of {}", names.join(", "))))
    };
}

fuzz_target!(|data: &[u8]| {
    WORLD.with(|(world, (_, run))| run(world, data));
});
