//! A gateway over tables that may be written, and an HTTP client for it.

use super::{TestGateway, World};
use crate::bad_input::{ANSWER, Answer};
use rowcast::config::Settings;
use serde_json::Value;

/// See the module.
pub struct Writing {
    pub world: World,
    pub gateway: TestGateway,
    http: reqwest::Client,
}

impl Writing {
    /// A world with these tables, and a gateway on it.
    pub async fn new(sql: &str) -> Writing {
        Writing::with(sql, |_, _| {}).await
    }

    /// With other settings.
    pub async fn with(sql: &str, change: impl FnOnce(&World, &mut Settings)) -> Writing {
        let world = World::new().await;
        world.run(sql).await;
        let gateway = world.gateway_with(|settings| change(&world, settings)).await;
        Writing { world, gateway, http: http() }
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        self.send_to(&self.gateway, method, path, headers, body).await
    }

    /// To another gateway of the same world.
    pub async fn send_to(
        &self,
        gateway: &TestGateway,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = self.http.request(method.parse().unwrap(), gateway.url(path)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{method} {path}: {e:?}"));
        let status = answer.status().as_u16();
        let headers = answer.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        Answer { status, headers, body: answer.text().await.unwrap() }
    }

    /// A request with a JSON body.
    pub async fn json(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
        self.send(method, path, &headers, body).await
    }

    /// A patch based on a version.
    pub async fn patch(&self, path: &str, version: &str, body: &str) -> Answer {
        self.json("PATCH", path, &[("if-match", version)], body).await
    }

    /// One text from the database.
    pub async fn text(&self, query: &str) -> String {
        let sql = self.world.sql().await;
        let row = sql.query_one(&format!("select ({query})::text"), &[]).await;
        row.unwrap_or_else(|e| panic!("{query}: {e:?}")).get::<_, Option<String>>(0).unwrap_or_default()
    }
}

pub fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap()
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Asserts the status and gives the body.
    pub fn ok(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.body);
        &self.body
    }

    /// Asserts a problem and gives it.
    pub fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{code}: {:?} {}", self.headers, self.body);
        let problem = self.problem();
        assert_eq!(problem["code"], code, "{problem}");
        problem
    }
}
