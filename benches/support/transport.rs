//! How subscribers are told, and how each way is opened.
//!
//! Must not know: who answers. Invariant: what is asked for is the same whatever the transport.

use super::{Outcome, ws};
use std::fmt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// `GET /v1/stream`.
    Sse,
    /// `GET /v1/ws`.
    Ws,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Sse => "SSE",
            Transport::Ws => "WebSocket",
        })
    }
}

impl Transport {
    /// Asks the gateway for a table, from a position on if one is given. Nothing that belongs to the subscription is read.
    pub(crate) async fn subscribe(self, socket: &mut TcpStream, table: &str, since: Option<&str>) -> Outcome {
        match self {
            Transport::Sse => {
                let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
                let request = format!(
                    "GET /v1/stream?table={table}{since} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n"
                );
                socket.write_all(request.as_bytes()).await?;
            }
            Transport::Ws => {
                self.open(socket).await?;
                socket.write_all(&ws::subscription(table, since)).await?;
            }
        }
        Ok(())
    }

    /// Opens it where there is nothing to choose from.
    pub(crate) async fn open(self, socket: &mut TcpStream) -> Outcome {
        match self {
            Transport::Sse => socket.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n").await?,
            Transport::Ws => {
                socket.write_all(ws::handshake().as_bytes()).await?;
                ws::accept(socket).await?;
            }
        }
        Ok(())
    }
}
