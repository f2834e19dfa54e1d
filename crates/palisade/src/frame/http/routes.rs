//! Route lines: the method, the path, who may call the route, and the handler.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use futures_util::future::BoxFuture;

use super::describe::{Described, Description};
use super::measured::method_name;
use super::{again, input, oauth};
use crate::access::{Access, Gate, admit};
use crate::app::App;
use crate::arrival::limit_headers;
use crate::error::Kind;
use crate::metrics::RouteMetrics;
use crate::trace;

type Mount = Box<dyn FnOnce() -> MethodRouter<App> + Send>;

/// The routes of a slice.
pub struct Routes {
    prefix: String,
    routes: Vec<Route>,
}

/// A route: its method, path and handler, and who may call it.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The whole path, with `{name}` for a variable segment.
    pub path: String,
    /// Who may call the route.
    pub access: Access,
    /// What it does: one sentence, and optionally more after an empty line.
    pub summary: &'static str,
    /// Whether it removes or ends something that it can't bring back, so that a page asks before calling it.
    pub destructive: bool,
    /// Refusals that its line and its handler's signature don't show.
    pub refusals: Vec<(Kind, &'static str)>,
    describe: fn(&mut Description),
    mount: Mount,
}

impl Route {
    /// Describes its handler.
    pub(super) fn describe(&self, description: &mut Description) {
        (self.describe)(description);
    }
}

impl Routes {
    /// No routes.
    pub fn none() -> Self {
        Self { prefix: String::new(), routes: Vec::new() }
    }

    /// Creates an empty list of API routes below `/api/v1` and `prefix`.
    pub fn at(prefix: &str) -> Self {
        Self { prefix: format!("/api/v1{prefix}"), routes: Vec::new() }
    }

    /// Creates an empty list of routes outside the API, with paths from the root.
    pub fn root() -> Self {
        Self::none()
    }

    /// Returns the routes of `self` followed by those of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Adds a `GET` route, which only reads.
    #[must_use]
    pub fn get<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, App> + Described<T>,
        T: Send + 'static,
    {
        self.add((Method::GET, MethodFilter::GET), path, access, handler)
    }

    /// Adds a `POST` route, which creates an object or performs an action.
    #[must_use]
    pub fn post<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, App> + Described<T>,
        T: Send + 'static,
    {
        self.add((Method::POST, MethodFilter::POST), path, access, handler)
    }

    /// Adds a `PUT` route, which sets the state regardless of what it was before.
    #[must_use]
    pub fn put<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, App> + Described<T>,
        T: Send + 'static,
    {
        self.add((Method::PUT, MethodFilter::PUT), path, access, handler)
    }

    /// Adds a `PATCH` route, which changes the fields that the body names.
    #[must_use]
    pub fn patch<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, App> + Described<T>,
        T: Send + 'static,
    {
        self.add((Method::PATCH, MethodFilter::PATCH), path, access, handler)
    }

    /// Adds a `DELETE` route, which removes or ends an object.
    #[must_use]
    pub fn delete<H, T>(self, path: &str, access: Access, handler: H) -> Self
    where
        H: Handler<T, App> + Described<T>,
        T: Send + 'static,
    {
        self.add((Method::DELETE, MethodFilter::DELETE), path, access, handler)
    }

    fn add<H, T>(
        mut self,
        (method, filter): (Method, MethodFilter),
        path: &str,
        access: Access,
        handler: H,
    ) -> Self
    where
        H: Handler<T, App> + Described<T>,
        T: Send + 'static,
    {
        let path = match path {
            "/" if !self.prefix.is_empty() => self.prefix.clone(),
            _ => format!("{}{path}", self.prefix),
        };
        let gate = access.clone();
        let route = Arc::new(RouteMetrics::new(method_name(&method), &path));
        let mount: Mount =
            Box::new(move || on(filter, Gated { access: Arc::new(gate), route, handler }));
        let describe = H::describe;
        self.routes.push(Route {
            destructive: method == Method::DELETE,
            method,
            path,
            access,
            summary: "",
            refusals: Vec::new(),
            describe,
            mount,
        });
        self
    }

    /// Describes the route that was just added: one sentence, and optionally more after an empty line.
    #[must_use]
    pub fn summary(mut self, text: &'static str) -> Self {
        if let Some(route) = self.routes.last_mut() {
            route.summary = text;
        }
        self
    }

    /// Marks the route that was just added: it ends or replaces something that it can't bring back. A `DELETE` route
    /// always does. The page `/docs` asks for a confirmation before calling it.
    #[must_use]
    pub fn destructive(mut self) -> Self {
        if let Some(route) = self.routes.last_mut() {
            route.destructive = true;
        }
        self
    }

    /// Adds a refusal to the route that was just added: one that its line and its handler's signature don't show.
    #[must_use]
    pub fn or(mut self, kind: Kind, code: &'static str) -> Self {
        if let Some(route) = self.routes.last_mut() {
            route.refusals.push((kind, code));
        }
        self
    }

    /// Returns the routes as a list.
    pub fn into_list(self) -> Vec<Route> {
        self.routes
    }

    /// Adds the routes to a router.
    pub(crate) fn mount(self, router: Router<App>) -> Router<App> {
        self.routes
            .into_iter()
            .fold(router, |router, route| router.route(&route.path, (route.mount)()))
    }
}

/// A handler behind its gate: the body isn't read before the gate has admitted the request, except for a credential in it.
#[derive(Clone)]
struct Gated<H> {
    access: Arc<Access>,
    route: Arc<RouteMetrics>,
    handler: H,
}

impl<H, T> Handler<T, App> for Gated<H>
where
    H: Handler<T, App>,
    T: 'static,
{
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request, app: App) -> Self::Future {
        trace::found_route(&self.route);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let access = self.access;
            let as_oauth = |response| if access.oauth { oauth::mark(response) } else { response };
            let taken = input::take_credential(&app, access.in_body, &mut parts, body).await;
            let body = match taken {
                Ok(body) => body,
                Err(error) => return as_oauth(error.into_response()),
            };
            // SECURITY: the gate comes before the body (test: every_gate_decides_before_the_body_is_read).
            match trace::admitting(admit(&app, &access, &mut parts)).await {
                Ok(limit) => {
                    if access.lasting {
                        parts.extensions.insert(Gate(Arc::clone(&access)));
                    }
                    let mut response = if parts.method.is_safe() {
                        self.handler.call(Request::from_parts(parts, body), app).await
                    } else {
                        // Boxed separately: the state for a repeat would make the future of every request larger.
                        Box::pin(again::call(self.handler, parts, body, app)).await
                    };
                    for (name, value) in
                        limit.filter(|limit| limit.limit > 0).iter().flat_map(limit_headers)
                    {
                        response.headers_mut().entry(name).or_insert(value);
                    }
                    as_oauth(response)
                }
                Err(error) => as_oauth(error.into_response()),
            }
        })
    }
}
