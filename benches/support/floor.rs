//! The least an answer can cost here: an actix handler that returns bytes it has, in a process of its own with the
//! gateway's server settings.
//!
//! Must not know: what the bytes are. Invariant: the headers are those of the gateway's answer, and as many.

use super::Outcome;
use super::http::Answer;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

/// Tells the program to be the floor instead of measuring.
pub(crate) const ROLE: &str = "--be-the-floor";

/// Those that the server adds by itself.
const OWN: &[&str] = &["date", "content-length", "connection"];

/// The process. Ends with the value.
pub(crate) struct Floor {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Floor {
    /// Starts this program again as a server of two answers at `path`: the second to whoever sends `If-None-Match`.
    pub(crate) fn start(workers: usize, answers: [&Answer; 2]) -> Outcome<Floor> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args([ROLE, &workers.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let told = answers.map(|a| serde_json::json!({ "status": a.status, "headers": a.headers, "body": a.body }));
        serde_json::to_writer(child.stdin.take().ok_or("no way to tell the floor")?, &told)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("nothing heard of the floor")?).read_line(&mut line)?;
        Ok(Floor { child, address: line.trim().parse()? })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, serde::Deserialize)]
struct Told {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Clone)]
struct Ready {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: bytes::Bytes,
}

impl Ready {
    fn of(told: Told) -> Outcome<Ready> {
        let headers = told.headers.into_iter().filter(|(n, _)| !OWN.iter().any(|own| n.eq_ignore_ascii_case(own)));
        Ok(Ready { status: StatusCode::from_u16(told.status)?, headers: headers.collect(), body: told.body.into() })
    }

    fn respond(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        for (name, value) in &self.headers {
            response.insert_header((name.as_str(), value.as_str()));
        }
        if self.body.is_empty() { response.finish() } else { response.body(self.body.clone()) }
    }
}

/// Is the floor. Settings as in `http::serve`, runtime as in `main`.
pub(crate) fn serve(workers: usize) -> Outcome {
    let mut told = String::new();
    std::io::stdin().read_to_string(&mut told)?;
    let [full, held]: [Told; 2] = serde_json::from_str(&told)?;
    let ready = web::Data::new([Ready::of(full)?, Ready::of(held)?]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let server = HttpServer::new(move || {
            App::new().app_data(ready.clone()).default_service(web::to(
                |request: HttpRequest, ready: web::Data<[Ready; 2]>| async move {
                    let [full, held] = &**ready;
                    if request.headers().contains_key("if-none-match") { held.respond() } else { full.respond() }
                },
            ))
        });
        let server = server.h1_allow_half_closed(false).tcp_nodelay(true).workers(workers).listen(listener)?;
        anstream::println!("{address}");
        Ok(server.run().await?)
    })
}
