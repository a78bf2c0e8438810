//! The import rules, read off `src/`: which module may know what.

use std::fs;
use std::path::{Path, PathBuf};

/// Text that may stand only in files below these paths.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("tokio_postgres", &["pg/", "demo/"]),
    ("deadpool", &["pg/"]),
    ("actix", &["http/", "gateway.rs"]),
    ("moka", &["cache/"]),
    ("jsonwebtoken", &["auth/"]),
    // nothing else is ever asked for anything
    ("reqwest", &["auth/"]),
    // what is served elsewhere would be missing in the description
    ("web::resource", &["http/routes.rs", "http/tables.rs"]),
    ("utoipa", &["http/openapi/", "http/routes.rs"]),
    ("std::env", &["config/", "main.rs"]),
    ("tokio::spawn", &["tasks.rs"]),
    ("unbounded", &[]),
];

/// Pure modules and what they must not know.
const PURE: &[&str] = &["change/", "filter/", "permit/", "wire/"];
const IMPURE: &[&str] = &["tokio", "tracing", "std::fs", "std::net", "Instant", "SystemTime", " rand::", "println"];

/// Layers, lowest first: a module may use those before it, never those after.
const LAYERS: &[&[&str]] = &[
    &["change"],
    &["filter"],
    &["permit"],
    &["wire"],
    &["tasks"],
    &["auth"],
    &["hub"],
    &["session", "cache"],
    &["pg"],
    &["http"],
    &["config"],
    &["gateway"],
    &["cli"],
];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out)
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path)
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 30, "found the sources");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            // tests may use what they like, and comments may name what they do without
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            let code = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code)
        })
        .collect()
}

#[test]
fn what_may_be_known_where() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (text, allowed) in ONLY_IN {
            if code.contains(text) && !allowed.iter().any(|a| file.starts_with(a)) {
                wrong.push(format!("{file} knows `{text}`"));
            }
        }
        if PURE.iter().any(|p| file.starts_with(p)) && !file.contains("tests") {
            wrong.extend(
                IMPURE.iter().filter(|w| code.contains(**w)).map(|w| format!("{file} is pure and knows `{w}`")),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let Some(layer) = LAYERS.iter().position(|l| l.contains(&module)) else { continue };
        for above in LAYERS[layer + 1..].iter().flat_map(|l| l.iter()) {
            if code.contains(&format!("crate::{above}::")) {
                wrong.push(format!("{file} uses `{above}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_opens_with_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let silent: Vec<String> = sources()
        .into_iter()
        .map(|(file, _)| file)
        .filter(|file| !file.contains("tests"))
        .filter(|file| !fs::read_to_string(root.join(file)).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}
