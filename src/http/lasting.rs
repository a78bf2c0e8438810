//! Handlers that stay as long as their connection: streams and WebSockets.
//!
//! The framework keeps the request of a handler until the handler answers: 6.7 kB of header tables, for hours. Here what
//! opens the connection sees the request, what follows does not, and ends with an error, which needs no request, instead of
//! an answer.
//!
//! Must not know: what is told. Invariants: the request is gone when what follows begins; whatever the framework makes of the
//! error reaches nobody, as the [`super::outlet::Outlet`] shut the connection before.

use super::Problem;
use actix_web::dev::{Payload, ServiceFactory, ServiceRequest, ServiceResponse, fn_service};
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError};
use futures_util::future::LocalBoxFuture;

/// What a request comes to.
pub(super) enum Opened {
    /// It is answered by the framework.
    Answered(HttpResponse),
    /// This answers it, by an outlet it took, and takes as long as the connection.
    Goes(LocalBoxFuture<'static, ()>),
}

/// The connection was answered to its end, and shut.
#[derive(Debug, thiserror::Error)]
#[error("the connection is over")]
struct Over;

impl ResponseError for Over {
    fn error_response(&self) -> HttpResponse {
        HttpResponse::Ok().finish()
    }
}

/// The service of a handler that opens a connection, or answers why not.
pub(super) fn lasting<O>(
    open: O,
) -> impl ServiceFactory<ServiceRequest, Response = ServiceResponse, Error = Error, Config = (), InitError = ()>
where
    O: AsyncFn(&HttpRequest, Payload) -> Result<Opened, Problem> + Clone + 'static,
{
    fn_service(move |request: ServiceRequest| {
        let open = open.clone();
        async move {
            let (request, payload) = request.into_parts();
            // apart, so that what goes on for hours does not keep the room its beginning took
            let opened = Box::pin(open(&request, payload)).await;
            match opened {
                Ok(Opened::Goes(on)) => {
                    drop(request);
                    on.await;
                    Err(Over.into())
                }
                Ok(Opened::Answered(answer)) => Ok(ServiceResponse::new(request, answer)),
                Err(problem) => Ok(ServiceResponse::new(request, HttpResponse::from_error(problem))),
            }
        }
    })
}

#[cfg(test)]
pub(super) mod tests {
    /// Bytes that the future of a function holds.
    pub(in crate::http) fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }
}
