//! Tells the program what it is built with, for `palisade version`. Nothing here depends on the time or the machine.
#![expect(clippy::disallowed_methods, reason = "cargo passes everything through the environment")]

use std::path::Path;
use std::process::Command;

fn main() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let rustc = Command::new(variable("RUSTC")).arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // TARGET_DIRECTORY/PROFILE/build/PACKAGE/out
    let out = variable("OUT_DIR");
    let profile = Path::new(&out).ancestors().nth(3).and_then(Path::file_name);
    let profile = profile.map(|name| name.to_string_lossy().replace("debug", "dev"));
    println!("cargo::rustc-env=BUILD_TARGET={}", variable("TARGET"));
    println!("cargo::rustc-env=BUILD_RUSTC={}", rustc.unwrap_or_default());
    println!("cargo::rustc-env=BUILD_PROFILE={}", profile.unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
}
