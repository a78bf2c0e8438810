//! The live page, one file without a build step, carried in the program.
//!
//! Must not know: how it is served.

/// `demo/index.html`.
pub(super) const INDEX: &[u8] = include_bytes!("../../demo/index.html");

/// What the page subscribes to, and so does `--once`: `<id>~<table>?<filter>`.
pub(super) const SUBSCRIPTIONS: [&str; 4] =
    ["games~games?status=in.(live,final)", "board~leaderboard", "picks~picks", "standings~standings"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_subscribes_to_what_is_checked_and_needs_nothing_from_elsewhere() {
        let page = std::str::from_utf8(INDEX).unwrap();
        for subscription in SUBSCRIPTIONS {
            assert!(page.contains(&format!("'{subscription}'")), "{subscription}");
        }
        for outside in ["http://", "https://", "src=\"//", "@import", "<link rel=\"stylesheet\""] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
