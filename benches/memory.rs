//! What a subscriber costs: memory of the process, and of the kernel for those that do not read.
//!
//! See README.md. Invariant: all are subscribed, and have what they asked for, when memory is looked at.

#[path = "support/mod.rs"]
mod support;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_ws::Message;
use clap::Parser;
use futures_util::{StreamExt, stream};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::Outcome;
use support::cpu::megabytes;
use support::gateway::Gateway;
use support::members::{Member, ask, connect, raise_files, until};
use support::report::{table, verdict};
use support::server::{Flush, Server};
use support::transport::Transport;
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// Memory per idle subscriber, beside a bare actix server of streams, and per subscriber that does not read.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench memory --")]
struct Args {
    /// Idle subscribers
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    idle: Vec<usize>,
    /// Subscribers that do not read
    #[arg(long, default_value_t = 1000)]
    stalled: usize,
    /// Ways to be told, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sse,ws")]
    transport: Vec<Transport>,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Is the bare server
    #[arg(long, hide = true)]
    be_bare: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What every subscriber of the bare server is told, once: to the clients it is a snapshot.
const FIRST: &str = "{\"type\":\"snapshot\"}";

/// What an idle stream is to the bare server: one event, and then silence.
async fn bare_stream() -> HttpResponse {
    let first = web::Bytes::from(format!("data: {FIRST}\n\n"));
    let body = stream::iter([Ok::<_, std::convert::Infallible>(first)]).chain(stream::pending());
    HttpResponse::Ok().content_type("text/event-stream").streaming(body)
}

/// An idle WebSocket as the documentation of `actix-ws` has it: one message, and then a task that answers pings.
async fn bare_socket(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let (response, mut session, mut messages) = actix_ws::handle_with_protocols(&request, body, &["rowcast.v1"])?;
    actix_web::rt::spawn(async move {
        if session.text(FIRST).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = messages.next().await {
            if let Message::Ping(payload) = message
                && session.pong(&payload).await.is_err()
            {
                return;
            }
        }
    });
    Ok(response)
}

/// Is the bare server.
fn bare() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let server = HttpServer::new(|| {
            App::new().route("/v1/ws", web::get().to(bare_socket)).default_service(web::to(bare_stream))
        });
        let server = server.h1_allow_half_closed(false).tcp_nodelay(true).workers(2).listen(listener)?;
        anstream::println!("{address}");
        Ok(server.run().await?)
    })
}

struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start() -> Outcome<Bare> {
        let mut child = Command::new(std::env::current_exe()?).arg("--be-bare").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("nothing heard")?).read_line(&mut line)?;
        Ok(Bare { child, address: line.trim().parse()? })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many, each having what it begins with, and each reading on: pings are answered. Ends with the value.
async fn open(transport: Transport, to: SocketAddr, table: Option<&str>, count: usize) -> Outcome<JoinSet<()>> {
    let mut all = JoinSet::new();
    let mut members = Vec::new();
    for i in 0..count {
        let socket = match table {
            Some(table) => ask(transport, i, to, table, None, true).await?,
            None => {
                let mut socket = connect(i, to, true).await?;
                transport.open(&mut socket).await?;
                socket
            }
        };
        let member = Arc::new(Member::default());
        members.push(member.clone());
        all.spawn(async move { member.follow(transport, socket).await });
        if i % 100 == 99 || i + 1 == count {
            let stand = || members.iter().all(|member| member.ready.load(Ordering::Relaxed));
            until("they have what they begin with", stand).await?;
            members.clear();
        }
    }
    Ok(all)
}

/// Kilobytes per subscriber of a server that is warm, with so many.
async fn idle(transport: Transport, pid: u32, address: SocketAddr, table: Option<&str>, count: usize) -> Outcome<f64> {
    // what the first ones make it set up is nobody's
    drop(open(transport, address, table, 20).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = megabytes(pid);
    let mut all = open(transport, address, table, count).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = (megabytes(pid) - before) * 1024.0 / count as f64;
    match all.try_join_next() {
        None => Ok(each),
        Some(_) => Err(format!("some of {count} idle subscribers ended").into()),
    }
}

/// Memory of all TCP sockets of the machine in the kernel, in kilobytes.
fn kernel() -> f64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages: f64 = line.split(' ').next_back().and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
    pages * 4.0
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let args = Args::parse();
    let files = raise_files(65_536);
    if args.be_bare {
        return tokio::task::block_in_place(|| std::thread::spawn(bare).join().map_err(|_| "the bare server failed"))?;
    }
    let server = Server::start(Flush::Free).await?;
    let sql = server.database("bench", true).await?;
    sql.batch_execute(
        "create table item (id int primary key, n bigint not null, pad text not null default repeat('x', 100));
         insert into item select i, 0 from generate_series(1, 10) as i;
         create table large (id int primary key, n bigint not null, pad text not null default repeat('x', 2000));
         insert into large select i, 0 from generate_series(1, 20) as i;
         select rowcast.watch(t, public => true, snapshot_every => '0') from unnest(array['item', 'large']::regclass[]) as t",
    )
    .await?;
    let url = server.pg.url("bench");
    let mut rows = Vec::new();
    let mut worst = vec![0.0_f64; args.transport.len()];
    for count in args.idle {
        if files < count as u64 * 2 + 500 {
            return Err(format!("{count} subscribers need more open files than {files}: `ulimit -n`").into());
        }
        for (transport, worst) in args.transport.iter().zip(&mut worst) {
            let reference = Bare::start()?;
            let floor = idle(*transport, reference.child.id(), reference.address, None, count).await?;
            drop(reference);
            let gateway = Gateway::start(&args.gateway, &url, &[])?;
            gateway.ready().await?;
            let ours = idle(*transport, gateway.pid(), gateway.address, Some("item"), count).await?;
            *worst = worst.max(ours);
            let ratio = format!("{:.2}", ours / floor);
            rows.push(vec![
                count.to_string(),
                transport.to_string(),
                format!("{ours:.1}"),
                format!("{floor:.1}"),
                ratio,
            ]);
        }
    }
    table(&["idle subscribers", "transport", "rowcast kB each", "bare actix kB each", "ratio"], &rows);
    for (transport, worst) in args.transport.iter().zip(worst) {
        let most = match transport {
            Transport::Sse => 16.0,
            Transport::Ws => 20.0,
        };
        verdict(&format!("P4 {transport}: an idle subscriber <= {most} kB"), worst <= most, &format!("{worst:.1} kB"));
    }

    let mut rows = Vec::new();
    for &transport in &args.transport {
        let (process, kernel, gone) = stalled(&args.gateway, &url, &sql, transport, args.stalled).await?;
        rows.push(vec![
            args.stalled.to_string(),
            transport.to_string(),
            format!("{process:.1}"),
            format!("{kernel:.1}"),
            format!("{:.1}", gone.as_secs_f64()),
        ]);
        let all = process + kernel;
        let target = format!("P4 {transport}: a stalled subscriber <= 256 kB with the kernel's buffers");
        verdict(&target, all <= 256.0, &format!("{all:.1} kB"));
    }
    anstream::println!();
    table(
        &["stalled subscribers", "transport", "process kB each", "kernel kB each, both ends", "all gone after s"],
        &rows,
    );
    Ok(())
}

/// Of so many that read nothing while rows are written: the most kilobytes of each, in the process and in the kernel, and
/// after how long the last was closed.
async fn stalled(
    program: &Path,
    url: &str,
    sql: &Client,
    transport: Transport,
    count: usize,
) -> Outcome<(f64, f64, Duration)> {
    let gateway = Gateway::start(program, url, &[])?;
    gateway.ready().await?;
    drop(open(transport, gateway.address, Some("item"), 20).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, kernel_before) = (megabytes(gateway.pid()), kernel());
    let mut silent = Vec::new();
    for i in 0..count {
        silent.push(ask(transport, i, gateway.address, "large", None, false).await?);
    }
    gateway.until("followed by all", |ready| ready["subscriptions"] == count).await?;
    let (mut most, mut in_kernel, began) = (0.0_f64, 0.0_f64, Instant::now());
    loop {
        sql.batch_execute("update large set n = n + 1").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(megabytes(gateway.pid()) - before);
        in_kernel = in_kernel.max(kernel() - kernel_before);
        let left = gateway.readyz().await.map(|ready| ready["subscriptions"].clone());
        if left.as_ref().is_some_and(|left| *left == 0) {
            return Ok((most * 1024.0 / count as f64, in_kernel / count as f64, began.elapsed()));
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(format!("{left:?} of those that do not read are still there").into());
        }
    }
}
