//! Why a connection ended: the one closed set behind WebSocket close codes, `bye` reasons, counts and the documentation.
//!
//! Must not know: sockets, who counts. Invariants: a reason has one label and at most one code; a code tells whether to
//! come back by its range alone, so that a client needs no list: from 4400 on, and below 4000 except for going away
//! (1001, 1012, 1013), it must change something first.

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// This gateway stops.
    ShuttingDown,
    /// The gateway has not reached its database yet.
    NotReady,
    /// The gateway has all the connections it takes.
    Overloaded,
    /// The database cannot be read.
    Unavailable,
    /// The only table cannot be served.
    TableUnavailable,
    /// The rows of the only subscription are too many.
    SnapshotTooLarge,
    /// The rows of the only subscription change too fast.
    SnapshotTooBusy,
    /// Every subscription of a stream ended.
    NoSubscriptionLeft,
    /// An earlier answer of the connection is still unread.
    Pipelined,
    /// The gateway wants the connection made anew.
    Resume,
    /// The token's time is over.
    TokenExpired,
    /// The client does not read.
    TooSlow,
    /// The client answers no pings.
    NoPong,
    /// A frame that breaks RFC 6455.
    ProtocolError,
    /// A binary message.
    NotText,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message or frame above the limit.
    TooBig,
    /// A message that is not understood, or at the wrong time.
    BadMessage,
    /// A token that is not accepted.
    BadToken,
    /// Nothing of this is for this client.
    Forbidden,
    /// There is no such table.
    UnknownTable,
    /// None of the subprotocols offered is spoken here.
    NoSubprotocol,
    /// No `init` in time.
    NoInit,
    /// More than a client may have.
    Quota,
    /// The client closed the connection.
    Left,
    /// The connection broke.
    Lost,
}

/// What the client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Connects again, to any gateway, and goes on from its positions.
    ComeBack,
    /// Changes something first: the same again would end the same.
    StayAway,
    /// What it likes: it is the one who ended it.
    Nothing,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [CloseReason; 26] = [
        CloseReason::ShuttingDown,
        CloseReason::NotReady,
        CloseReason::Overloaded,
        CloseReason::Unavailable,
        CloseReason::TableUnavailable,
        CloseReason::SnapshotTooLarge,
        CloseReason::SnapshotTooBusy,
        CloseReason::NoSubscriptionLeft,
        CloseReason::Pipelined,
        CloseReason::Resume,
        CloseReason::TokenExpired,
        CloseReason::TooSlow,
        CloseReason::NoPong,
        CloseReason::ProtocolError,
        CloseReason::NotText,
        CloseReason::NotUtf8,
        CloseReason::TooBig,
        CloseReason::BadMessage,
        CloseReason::BadToken,
        CloseReason::Forbidden,
        CloseReason::UnknownTable,
        CloseReason::NoSubprotocol,
        CloseReason::NoInit,
        CloseReason::Quota,
        CloseReason::Left,
        CloseReason::Lost,
    ];

    /// Label, WebSocket code, what to do, and when it happens: everything there is to know of a reason, once.
    const fn facts(self) -> (&'static str, Option<u16>, Then, &'static str) {
        use Then::{ComeBack, Nothing, StayAway};
        match self {
            CloseReason::ShuttingDown => ("shutting-down", Some(1012), ComeBack, "this gateway stops; others go on"),
            CloseReason::NotReady => {
                ("not-ready", Some(1013), ComeBack, "the gateway has not reached its database yet, see `/readyz`")
            }
            CloseReason::Overloaded => {
                ("overloaded", Some(1013), ComeBack, "the gateway has all the connections it takes")
            }
            CloseReason::Unavailable => ("unavailable", None, ComeBack, "the database could not be read"),
            CloseReason::TableUnavailable => {
                ("table-unavailable", None, ComeBack, "the table cannot be served now; `rowcast tables` says why")
            }
            CloseReason::SnapshotTooLarge => {
                ("snapshot-too-large", None, ComeBack, "narrow the filter, select fewer columns")
            }
            CloseReason::SnapshotTooBusy => {
                ("snapshot-too-busy", None, ComeBack, "narrow the filter, select fewer columns")
            }
            CloseReason::NoSubscriptionLeft => {
                ("no-subscription-left", None, ComeBack, "every subscription ended with a `problem`")
            }
            CloseReason::Pipelined => (
                "pipelined",
                None,
                ComeBack,
                "the connection's last answer was large and may still be unread: come back at once",
            ),
            CloseReason::Resume => {
                ("resume", Some(4000), ComeBack, "the gateway cannot go on with this connection; positions stay good")
            }
            CloseReason::TokenExpired => {
                ("token-expired", Some(4001), ComeBack, "with a new token: the one it was for is over")
            }
            CloseReason::TooSlow => {
                ("too-slow", Some(4002), ComeBack, "the client took nothing for `write_timeout_seconds`")
            }
            CloseReason::NoPong => ("no-pong", Some(4005), ComeBack, "two pings in a row were not answered"),
            CloseReason::ProtocolError => {
                ("protocol-error", Some(1002), StayAway, "a frame that RFC 6455 does not allow")
            }
            CloseReason::NotText => ("not-text", Some(1003), StayAway, "a binary message; messages are text"),
            CloseReason::NotUtf8 => ("not-utf8", Some(1007), StayAway, "text that is not UTF-8"),
            CloseReason::TooBig => ("too-big", Some(1009), StayAway, "a message of more than 64 KiB"),
            CloseReason::BadMessage => {
                ("bad-message", Some(4400), StayAway, "a message that is not understood, or a second `init`")
            }
            CloseReason::BadToken => {
                ("bad-token", Some(4401), StayAway, "a token that is not accepted, or another message before `init`")
            }
            CloseReason::Forbidden => (
                "forbidden",
                Some(4403),
                StayAway,
                "`auth` brought a token of another issuer, subject or role, or without `sub` of other claims: connect anew",
            ),
            CloseReason::UnknownTable => (
                "unknown-table",
                Some(4404),
                StayAway,
                "not sent: an unknown table is the `problem` of its subscription",
            ),
            CloseReason::NoSubprotocol => (
                "no-subprotocol",
                Some(4406),
                StayAway,
                "subprotocols were offered and `rowcast.v1` was not among them",
            ),
            CloseReason::NoInit => ("no-init", Some(4408), StayAway, "no `init` within 10 s"),
            CloseReason::Quota => {
                ("quota", Some(4429), StayAway, "more than 1,000 frames at once, or 100 a second in the long run")
            }
            CloseReason::Left => ("left", None, Nothing, "the client closed it; never told"),
            CloseReason::Lost => ("lost", None, Nothing, "the connection broke; never told"),
        }
    }

    /// The name: `reason` of a `bye`, the beginning of the reason in a close frame, the label of the count.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.facts().0
    }

    /// The code of the close frame; none when this never closes a WebSocket.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        self.facts().1
    }

    /// What the client does next.
    #[must_use]
    pub const fn then(self) -> Then {
        self.facts().2
    }

    /// Is a `bye` said before it?
    #[must_use]
    pub fn says_bye(self) -> bool {
        self.then() == Then::ComeBack
    }

    /// Its place in [`CloseReason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason why a stream that could not begin ends, from the code of the problem.
    #[must_use]
    pub fn of_problem(code: &str) -> CloseReason {
        let found = CloseReason::ALL.into_iter().find(|reason| reason.label() == code && reason.says_bye());
        found.unwrap_or(CloseReason::Unavailable)
    }

    /// The documentation's row.
    #[must_use]
    pub fn documentation(self) -> String {
        let (label, code, then, when) = self.facts();
        let code = code.map(|code| code.to_string()).unwrap_or_default();
        let then = match then {
            Then::ComeBack => "come back",
            Then::StayAway => "stay away",
            Then::Nothing => "",
        };
        format!("| `{label}` | {code} | {then} | {when} |")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_is_one_of_all_with_a_label_of_its_own() {
        let labels: HashSet<_> = CloseReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), i, "{reason:?}");
        }
    }

    #[test]
    fn the_range_of_a_code_tells_what_to_do() {
        for reason in CloseReason::ALL {
            let Some(code) = reason.code() else { continue };
            let back = matches!(code, 1001 | 1012 | 1013 | 4000..=4399);
            assert_eq!(back, reason.then() == Then::ComeBack, "{reason:?}");
            // what RFC 6455, 7.4 lets an endpoint send
            assert!(matches!(code, 1000..=1003 | 1007..=1014 | 4000..=4999), "{reason:?}");
        }
    }

    #[test]
    fn the_documentation_has_exactly_these_rows() {
        let text = include_str!("../../docs/http.md");
        let (_, table) = text.split_once("| reason | code | then | when |\n|---|---|---|---|\n").unwrap();
        let written: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
        let wanted: Vec<String> = CloseReason::ALL.iter().map(|r| r.documentation()).collect();
        assert_eq!(written, wanted, "{}", wanted.join("\n"));
    }

    #[test]
    fn a_problem_that_ends_a_stream_is_said_by_its_own_name() {
        assert_eq!(CloseReason::of_problem("snapshot-too-busy"), CloseReason::SnapshotTooBusy);
        assert_eq!(CloseReason::of_problem("something-else"), CloseReason::Unavailable);
    }
}
