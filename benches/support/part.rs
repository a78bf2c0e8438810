//! This program once more, as another part of a measurement, in a process of its own so that its processor time is its own.
//!
//! Invariant: one order a line, one answer a line, both JSON; ends with the value.

use super::Outcome;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// See the module.
pub(crate) struct Part {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Part {
    /// Starts it; `role` is what its `main` knows it by.
    pub(crate) fn start(role: &str) -> Outcome<Part> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("no way to tell the part")?;
        let answers = BufReader::new(child.stdout.take().ok_or("nothing heard of the part")?);
        Ok(Part { child, orders, answers })
    }

    /// Gives an order and waits for the answer.
    pub(crate) fn ask(&mut self, order: &Value) -> Outcome<Value> {
        self.tell(order)?;
        self.answer()
    }

    /// Gives an order; [`Part::answer`] must be called for it later.
    pub(crate) fn tell(&mut self, order: &Value) -> Outcome {
        writeln!(self.orders, "{order}")?;
        Ok(self.orders.flush()?)
    }

    /// Waits for an answer.
    pub(crate) fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).map_err(|e| format!("a part of the bench ended: {e}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned().into()),
            None => Ok(answer),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is a part: answers orders until there are no more.
pub(crate) async fn obey(mut order: impl AsyncFnMut(Value) -> Outcome<Value>) -> Outcome {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = told.recv().await {
        let answer = match order(serde_json::from_str(&line)?).await {
            Ok(answer) => answer,
            Err(error) => serde_json::json!({ "error": error.to_string() }),
        };
        anstream::println!("{answer}");
    }
    Ok(())
}

/// Microseconds of the clock that all processes of a machine share.
pub(crate) fn micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
