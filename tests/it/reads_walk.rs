//! Everything the contract says of reads, once, as a client meets it.

use crate::support::{ReadClient, Sse, TestGateway, World, eventually};
use serde_json::json;
use std::io::Write;

async fn served() -> (World, TestGateway, ReadClient) {
    let world = World::new().await;
    world
        .run(
            "create table game (id int primary key, league text collate \"C\", score numeric, big int8, note json, hidden text);
             create table seat (hall text, no int, taken bool, primary key (hall, no));
             insert into game values (1, 'nfl', 14, 9007199254740993, '{\"a\":\n1}', 'x'), (2, 'nba', 101.50, 2, null, 'x'),
                (3, 'nfl', null, 3, null, 'x'), (4, 'mlb', 7, 4, null, 'x'), (5, 'nfl', 14, 5, null, 'x');
             insert into seat values ('a,b', 1, false), ('a/b%', 2, true), ('ü', 3, true);
             select rowcast.watch('game', exclude => array['hidden'], public => true, ttl => '1 h', stale => '2 h'),
                rowcast.watch('seat', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    (world, gateway, client)
}

fn ids(reading: &crate::support::Reading) -> Vec<i64> {
    reading.rows().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let (_world, gateway, client) = served().await;
    let all = client.get("/v1/tables/game").await;
    assert_eq!((all.status, all.header("content-type")), (200, "application/json"));
    assert_eq!(ids(&all), [1, 2, 3, 4, 5], "by key when nothing else is said");
    assert!(!all.text().contains("hidden") && all.header("link").is_empty() && all.header("rowcast-more").is_empty());
    assert_eq!(all.header("accept-query"), "application/x-www-form-urlencoded");

    // the bytes that a stream sends
    let mut sse = Sse::open(gateway.address, "table=game").await;
    let event = sse.event().await.unwrap();
    let first = all.text()[1..].split("},{").next().unwrap();
    assert!(event.data.contains(&format!("{first}}}")), "{first}\n{}", event.data);

    for (query, wanted) in [
        ("league=eq.nfl", &[1, 3, 5][..]),
        ("league=eq.nfl&score=gte.10", &[1, 5]),
        ("or=(id.eq.2,league.eq.mlb)", &[2, 4]),
        ("order=score.desc.nullslast,id.desc", &[2, 5, 1, 4, 3]),
        ("order=score.desc", &[3, 2, 1, 5, 4]),
        ("order=score.nullsfirst", &[3, 4, 1, 5, 2]),
        ("order=league.desc,score.asc.nullsfirst", &[3, 1, 5, 2, 4]),
        ("limit=2", &[1, 2]),
        ("limit=2&offset=3", &[4, 5]),
        ("offset=9", &[]),
        ("limit=0", &[]),
        ("league=eq.none", &[]),
        ("limit=1000000000", &[1, 2, 3, 4, 5]),
    ] {
        assert_eq!(ids(&client.get(&format!("/v1/tables/game?{query}")).await), wanted, "{query}");
    }
    let some = client.get("/v1/tables/public.game?select=id,big&id=eq.1").await;
    assert_eq!(some.text(), r#"[{"id":1,"big":9007199254740993}]"#);
    let some = client.get("/v1/tables/game?select=big,score&id=lte.2&numbers=string").await;
    assert_eq!(some.text(), r#"[{"big":"9007199254740993","score":"14"},{"big":"2","score":"101.50"}]"#);

    let mut page = "/v1/tables/game?limit=2&league=neq.x%26y&order=id.desc".to_owned();
    let mut seen = Vec::new();
    loop {
        let reading = client.get(&page).await;
        seen.extend(ids(&reading));
        assert_eq!(reading.header("rowcast-more").is_empty(), reading.header("link").is_empty());
        let Some(next) = reading.header("link").strip_prefix('<').and_then(|l| l.strip_suffix(">; rel=\"next\""))
        else {
            assert_eq!(reading.header("link"), "");
            break;
        };
        page = next.to_owned();
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    assert!(page.contains("offset=4") && page.contains("x%26y"), "{page}");
    gateway.stop().await;
}

#[tokio::test]
async fn one_row_by_its_key() {
    let (world, gateway, client) = served().await;
    let row = client.get("/v1/tables/game/2").await;
    assert_eq!((row.status, row.json()["league"].as_str()), (200, Some("nba")));
    assert_eq!(row.header("etag"), format!("\"{}\"", row.json()["row_version"]));
    assert_eq!(
        client.get("/v1/tables/game/1?select=id,big&numbers=string").await.text(),
        r#"{"id":1,"big":"9007199254740993"}"#
    );
    // the key as rows are told with: encoded, joined with a comma
    for (key, no) in [("a%2Cb,1", 1), ("a%2Fb%25,2", 2), ("%C3%BC,3", 3)] {
        let row = client.get(&format!("/v1/tables/seat/{key}")).await;
        assert_eq!((row.status, row.json()["no"].as_i64()), (200, Some(no)), "{key}: {}", row.text());
    }
    let absent = client.get("/v1/tables/game/99").await;
    let nowhere = client.get("/v1/tables/nothing/99").await;
    let without_id = |reading: &crate::support::Reading| {
        let mut problem = reading.json();
        problem["request_id"] = json!(null);
        (reading.status, problem)
    };
    assert_eq!(without_id(&absent), without_id(&nowhere));
    assert_eq!((absent.status, absent.code().as_str()), (404, "not-found"));

    // an absence is kept, and ends with the row
    world.run("insert into game values (99, 'nfl', 1)").await;
    eventually("the row is there", || async { client.get("/v1/tables/game/99").await.status == 200 }).await;
    let written = client.get("/v1/tables/game/99").await;
    assert!(written.cache_status().contains("hit"), "{}", written.cache_status());
    world.run("update game set id = 98 where id = 99").await;
    eventually("the old key is gone", || async { client.get("/v1/tables/game/99").await.status == 404 }).await;
    assert_eq!(client.get("/v1/tables/game/98").await.json()["league"], "nfl");
    world.run("delete from game where id = 98").await;
    eventually("the row is gone", || async { client.get("/v1/tables/game/98").await.status == 404 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_caches_are_told() {
    let (world, gateway, client) = served().await;
    for path in ["/v1/tables/game?league=eq.nfl", "/v1/tables/game/1"] {
        let miss = client.get(path).await;
        assert_eq!(miss.cache_status(), "rowcast; fwd=miss; stored", "{path}");
        assert!(miss.header("server-timing").starts_with("cache;desc=miss, db;dur="), "{miss:?}");
        let hit = client.get(path).await;
        assert!(hit.cache_status().starts_with("rowcast; hit; ttl=3"), "{path}: {}", hit.cache_status());
        assert!(hit.header("server-timing").starts_with("cache;desc=hit, total;dur="), "{hit:?}");
        assert_eq!(hit.body, miss.body);
        assert_eq!(hit.header("cache-control"), "public, max-age=0, s-maxage=3600, stale-while-revalidate=7200");
        assert_eq!(hit.header("vary"), "Accept-Encoding, Rowcast-Min-Position");
        assert_eq!(hit.header("age"), "0");
        assert!(!hit.position().is_empty());
        let tag = hit.header("etag").to_owned();
        assert!(tag.ends_with('"') && tag.starts_with(if path.ends_with('1') { "\"" } else { "W/\"" }), "{tag}");

        for condition in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
            let same = client.ask("GET", path, &[("if-none-match", &condition)], "").await;
            assert_eq!((same.status, same.body.len()), (304, 0), "{condition}");
            for name in ["etag", "cache-control", "vary"] {
                assert_eq!(same.header(name), hit.header(name), "{name}");
            }
            assert!(
                same.cache_status().contains("hit") && !same.position().is_empty() && !same.header("age").is_empty()
            );
        }
        let other = client.ask("GET", path, &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.status, 200);
        let head = client.ask("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("etag"), tag);
        assert_eq!(head.header("content-length"), hit.body.len().to_string());

        world.run("update game set score = score + 1 where id = 1").await;
        eventually("another answer", || async {
            client.ask("GET", path, &[("if-none-match", &tag)], "").await.status == 200
        })
        .await;
    }
    // a row is written through; a list is read again
    let loads = || gateway.gateway().core().reads.counts().loads.load(std::sync::atomic::Ordering::Relaxed);
    let before = loads();
    let row = client.get("/v1/tables/game/1").await;
    world.run("update game set score = 77 where id = 1").await;
    eventually("the row is written through", || async { client.get("/v1/tables/game/1").await.json()["score"] == 77 })
        .await;
    assert_eq!(loads(), before, "no read of the database");
    assert!(client.get("/v1/tables/game/1").await.tick() > row.tick());
    // what touches nothing of the list leaves it as it is
    client.get("/v1/tables/game?league=eq.nba").await;
    let before = loads();
    world.run("update game set score = 78 where id = 1").await;
    eventually("the row is written through", || async { client.get("/v1/tables/game/1").await.json()["score"] == 78 })
        .await;
    let kept = client.get("/v1/tables/game?league=eq.nba").await;
    assert!(kept.cache_status().contains("hit") && loads() == before, "{}", kept.cache_status());
    // one that leaves the filter touches it
    world.run("update game set league = 'nhl' where id = 2").await;
    eventually("the row left", || async { client.get("/v1/tables/game?league=eq.nba").await.rows().is_empty() }).await;
    assert_eq!(loads(), before + 1);
    // and one that the table lost at once
    client.get("/v1/tables/game").await;
    world.run("truncate game").await;
    eventually("all rows are gone", || async { client.get("/v1/tables/game").await.rows().is_empty() }).await;
    assert_eq!(client.get("/v1/tables/game/1").await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn methods_and_bodies() {
    let (_world, gateway, client) = served().await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let asked = client.ask("QUERY", "/v1/tables/game", &[form], "league=eq.nfl&order=id.desc&limit=2").await;
    assert_eq!(ids(&asked), [5, 3]);
    assert!(asked.header("link").contains("league=eq.nfl") && asked.header("link").contains("offset=2"), "{asked:?}");
    let charset = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(ids(&client.ask("QUERY", "/v1/tables/game?limit=1", &[charset], "league=eq.nfl").await), [1]);
    let many = format!("id=in.({})", (0..1000).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
    assert_eq!(client.ask("QUERY", "/v1/tables/game", &[form], &many).await.rows().len(), 5);
    // the next page has no address, but there is one
    let long = (1..=1000).map(|i| if i < 4 { i.to_string() } else { (i + 1_000_000).to_string() });
    let long = format!("limit=2&id=in.({})", long.collect::<Vec<_>>().join(","));
    let first = client.ask("QUERY", "/v1/tables/game", &[form], &long).await;
    assert_eq!((ids(&first), first.header("link"), first.header("rowcast-more")), (vec![1, 2], "", "?1"));
    let last = client.ask("QUERY", "/v1/tables/game", &[form], &format!("{long}&offset=2")).await;
    assert_eq!((ids(&last), last.header("rowcast-more")), (vec![3], ""));
    let packed = [form, ("content-encoding", "gzip")];
    let packed = client.ask("QUERY", "/v1/tables/game", &packed, "league=eq.nfl").await;
    assert_eq!((packed.status, packed.code().as_str()), (415, "unsupported-media-type"));
    let over = client.ask("QUERY", "/v1/tables/game", &[form], &format!("league=eq.{}", "x".repeat(100_000))).await;
    assert_eq!((over.status, over.code().as_str()), (400, "filter-too-complex"));
    let json = client.ask("QUERY", "/v1/tables/game", &[("content-type", "application/json")], "{}").await;
    assert_eq!((json.status, json.code().as_str()), (415, "unsupported-media-type"));
    let large = client.ask("QUERY", "/v1/tables/game", &[form], &"a".repeat((1 << 20) + 1)).await;
    assert_eq!((large.status, large.code().as_str()), (413, "payload-too-large"));

    for (path, allow) in
        [("/v1/tables/game", "GET, HEAD, QUERY, POST"), ("/v1/tables/game/1", "GET, HEAD, PATCH, PUT, DELETE")]
    {
        for method in ["OPTIONS", "TRACE", "BREW"] {
            let refused = client.ask(method, path, &[], "").await;
            assert_eq!((refused.status, refused.header("allow")), (405, allow), "{method} {path}");
            assert_eq!(refused.code(), "method-not-allowed");
        }
        for (accept, status) in [
            ("application/xml", 406),
            ("text/event-stream", 406),
            ("text/html, application/xhtml+xml, */*;q=0.8", 200),
            ("application/*", 200),
            ("application/json", 200),
        ] {
            let answer = client.ask("GET", path, &[("accept", accept)], "").await;
            assert_eq!(answer.status, status, "{path} {accept}");
        }
    }
    for path in ["/v1/tables", "/v1/tables/", "/v1/table/game"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    // texts that are no key of an integer; of another table's they may be
    for path in ["/v1/tables/game/", "/v1/tables/game/1/2"] {
        assert_eq!(client.get(path).await.code(), "invalid-value", "{path}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn lists_are_packed_and_streams_are_not() {
    let (world, gateway, client) = served().await;
    world.run("insert into game select i, 'nfl', i from generate_series(1000, 1400) as i").await;
    eventually("the rows are there", || async { client.get("/v1/tables/game").await.rows().len() > 400 }).await;
    let plain = client.get("/v1/tables/game").await;
    for (accept, wanted) in [("gzip", "gzip"), ("br, gzip;q=0.5", "br"), ("identity", "")] {
        let packed = client.ask("GET", "/v1/tables/game", &[("accept-encoding", accept)], "").await;
        assert_eq!(packed.header("content-encoding"), wanted, "{accept}");
        assert_eq!(packed.header("etag"), plain.header("etag"));
        assert!(wanted.is_empty() || packed.body.len() * 3 < plain.body.len(), "{} bytes", packed.body.len());
    }
    let head = client.ask("HEAD", "/v1/tables/game", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((head.status, head.body.len(), head.header("content-encoding")), (200, 0, "gzip"));
    let tiny = client.ask("GET", "/v1/tables/game?limit=1", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(tiny.header("content-encoding"), "identity");
    let row = client.ask("GET", "/v1/tables/game/1", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((row.status, row.header("content-encoding")), (200, "identity"));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let stream = http.get(gateway.url("/v1/stream?table=game")).header("accept-encoding", "gzip, br").send().await;
    assert_eq!(stream.unwrap().headers()["content-encoding"], "identity");

    // once with the real thing
    let url = gateway.url("/v1/tables/game?order=id.desc&limit=300");
    let curl =
        tokio::process::Command::new("curl").args(["-sS", "--noproxy", "*", "--compressed", "-i", &url]).output().await;
    let Ok(curl) = curl else {
        let _ = writeln!(std::io::stderr(), "there is no curl here");
        return gateway.stop().await;
    };
    let text = String::from_utf8(curl.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.to_lowercase().contains("content-encoding: "), "{head}");
    let rows: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 300);
    gateway.stop().await;
}
