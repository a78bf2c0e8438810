//! Opens the page in the user's browser, if there is one to open.
//!
//! Must not know: what is on the page. Invariant: never waits and never fails; the address was printed anyway.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use crate::localpg::Environment;

/// Opens `url`, unless nobody sits in front of the machine.
pub(super) fn page(env: &Environment, url: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if !env.desktop || !std::io::stdout().is_terminal() {
        return;
    }
    if let Some(opener) = env.program(opener) {
        let quiet =
            Command::new(opener).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        drop(quiet);
    }
}
