//! What a subscriber costs: memory of the process, and of the kernel for those that do not read.
//!
//! See README.md. Invariant: all are subscribed, and have what they asked for, when memory is looked at.

#[path = "support/mod.rs"]
mod support;

use actix_web::body::{BodyStream, MessageBody};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Parser;
use futures_util::{StreamExt, stream};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::Outcome;
use support::cpu::megabytes;
use support::gateway::Gateway;
use support::members::{Kind, ask, raise_files};
use support::report::{table, verdict};
use support::server::{Flush, Server};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::codec::Decoder;

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
    /// Transport
    #[arg(long, value_enum, default_value = "sse")]
    kind: Kind,
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

/// What an idle WebSocket is to the bare server: it reads frames, told one, and then silence.
async fn bare_socket(request: HttpRequest, mut payload: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let first = web::Bytes::from_static(b"\x81\x0c\"more\":false");
    let first = stream::iter([Ok::<_, std::convert::Infallible>(first)]);
    let mut codec = actix_http::ws::Codec::new();
    let mut held = web::BytesMut::new();
    let reading = stream::poll_fn(move |cx| {
        while let std::task::Poll::Ready(next) = payload.poll_next_unpin(cx) {
            let Some(Ok(bytes)) = next else { return std::task::Poll::Ready(None) };
            held.extend_from_slice(&bytes);
            while let Ok(Some(_)) = codec.decode(&mut held) {}
        }
        std::task::Poll::Pending
    });
    let body = BodyStream::new(first.chain(reading));
    let mut answer = actix_http::ws::handshake(request.head()).map_err(actix_web::error::ErrorBadRequest)?;
    Ok(answer.message_body(body.boxed())?.into())
}

/// What an idle stream is to the bare server: one event, and then silence.
fn bare() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let server = HttpServer::new(|| {
            App::new().route("/v1/ws", web::get().to(bare_socket)).default_service(web::to(|| async {
                let first = stream::iter([Ok::<_, std::convert::Infallible>(web::Bytes::from_static(b"data: 1\n\n"))]);
                HttpResponse::Ok().content_type("text/event-stream").streaming(first.chain(stream::pending()))
            }))
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

/// Opens so many and reads of each what it begins with.
async fn open(kind: Kind, to: SocketAddr, count: usize) -> Outcome<Vec<TcpStream>> {
    let mut sockets = Vec::with_capacity(count);
    for i in 0..count {
        let mut socket = ask(kind, i, to, "table=item", None, true).await?;
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        let mark = kind.mark();
        while !head.windows(mark.len()).any(|part| part == mark) {
            let read = socket.read(&mut buffer).await?;
            if read == 0 {
                return Err(format!("the {i}th ended with {}", String::from_utf8_lossy(&head)).into());
            }
            head.extend_from_slice(&buffer[..read]);
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Kilobytes per subscriber of a server that is warm, with so many.
async fn idle(kind: Kind, pid: u32, address: SocketAddr, count: usize) -> Outcome<f64> {
    // what the first ones make it set up is nobody's
    drop(open(kind, address, 20).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = megabytes(pid);
    let sockets = open(kind, address, count).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = (megabytes(pid) - before) * 1024.0 / count as f64;
    drop(sockets);
    Ok(each)
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
    let mut worst: f64 = 0.0;
    for count in args.idle {
        if files < count as u64 * 2 + 500 {
            return Err(format!("{count} subscribers need more open files than {files}: `ulimit -n`").into());
        }
        let reference = Bare::start()?;
        let floor = idle(args.kind, reference.child.id(), reference.address, count).await?;
        drop(reference);
        let gateway = Gateway::start(&args.gateway, &url, &[])?;
        gateway.ready().await?;
        let ours = idle(args.kind, gateway.pid(), gateway.address, count).await?;
        worst = worst.max(ours);
        rows.push(vec![count.to_string(), format!("{ours:.1}"), format!("{floor:.1}"), format!("{:.2}", ours / floor)]);
    }
    table(&["idle subscribers", "rowcast kB each", "bare actix kB each", "ratio"], &rows);
    let most = if args.kind == Kind::Ws { 20.0 } else { 16.0 };
    verdict(&format!("P4: an idle subscriber <= {most} kB"), worst <= most, &format!("{worst:.1} kB"));

    let gateway = Gateway::start(&args.gateway, &url, &[])?;
    gateway.ready().await?;
    drop(open(args.kind, gateway.address, 20).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, kernel_before) = (megabytes(gateway.pid()), kernel());
    let mut stalled = Vec::new();
    for i in 0..args.stalled {
        stalled.push(ask(args.kind, i, gateway.address, "table=large", None, false).await?);
    }
    gateway.until("followed by all", |ready| ready["subscriptions"] == args.stalled).await?;
    let (mut most, mut in_kernel, began) = (0.0_f64, 0.0_f64, Instant::now());
    let gone = loop {
        sql.batch_execute("update large set n = n + 1").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(megabytes(gateway.pid()) - before);
        in_kernel = in_kernel.max(kernel() - kernel_before);
        let left = gateway.readyz().await.map_or(0, |ready| ready["subscriptions"].as_u64().unwrap_or(0));
        if left == 0 {
            break began.elapsed();
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(format!("{left} of those that do not read are still there").into());
        }
    };
    let (process, kernel) = (most * 1024.0 / args.stalled as f64, in_kernel / args.stalled as f64);
    table(
        &["stalled subscribers", "process kB each", "kernel kB each, both ends", "all gone after s"],
        &[vec![
            args.stalled.to_string(),
            format!("{process:.1}"),
            format!("{kernel:.1}"),
            format!("{:.1}", gone.as_secs_f64()),
        ]],
    );
    let all = process + kernel;
    verdict("P4: a stalled subscriber <= 256 kB with the kernel's buffers", all <= 256.0, &format!("{all:.1} kB"));
    Ok(())
}
