//! Every route, on one screen.
//!
//! `openapi.json` describes the same; `tests/it/server.rs` compares the two.

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post, put},
};

use super::{Shared, about, actions, admin, blobs, earlier, gate};

/// A path with its methods, and what handles them.
type Route = (
    &'static str,
    &'static [&'static str],
    fn() -> MethodRouter<Arc<Shared>>,
);

/// For everybody.
const OPEN: [Route; 4] = [
    ("/v1", &["GET"], || get(about::service)),
    ("/healthz", &["GET"], || get(about::health)),
    ("/readyz", &["GET"], || get(about::readiness)),
    ("/openapi.json", &["GET"], || get(about::openapi)),
];

/// In a namespace, for holders of a token.
#[rustfmt::skip]
const NAMESPACED: [Route; 10] = [
    ("/v1/{namespace}/actions/lookup", &["POST"], || post(actions::lookup)),
    ("/v1/{namespace}/actions/{key}/{*scope}", &["GET", "PUT"], || get(actions::fetch).put(actions::store)),
    ("/v1/{namespace}/blobs/missing", &["POST"], || post(blobs::missing)),
    ("/v1/{namespace}/blobs/{digest}", &["GET", "PUT"], || get(blobs::fetch).put(blobs::store)),
    ("/v1/{namespace}/blobs/{digest}/frames", &["POST"], || post(blobs::frames)),
    ("/v1/{namespace}/blobs/{digest}/commit", &["POST"], || post(blobs::commit)),
    ("/v1/{namespace}/frames/{digest}", &["PUT"], || put(blobs::store_frame)),
    ("/v1/{namespace}/pins/{id}", &["PUT", "DELETE"], || put(admin::pin).delete(admin::unpin)),
    ("/v1/{namespace}/gc", &["POST"], || post(admin::collect)),
    ("/v1/{namespace}/stats", &["GET"], || get(admin::stats)),
];

/// What the clients of the earlier MemoBuild ask for, for holders of a token.
#[rustfmt::skip]
const EARLIER: [Route; 4] = [
    ("/cache/{hash}", &["GET", "PUT"], || get(earlier::artifact).put(earlier::store_artifact)),
    ("/cache/layer/{hash}", &["GET", "PUT"], || get(earlier::layer).put(earlier::store_layer)),
    ("/cache/node/{hash}/layers", &["GET", "POST"], || get(earlier::node).post(earlier::store_node)),
    ("/gc", &["POST"], || post(earlier::collect)),
];

/// All paths with their methods. GET includes HEAD.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let all = OPEN.iter().chain(&NAMESPACED).chain(&EARLIER);
    all.map(|(path, methods, _)| (*path, *methods))
}

/// What handles requests.
pub(super) fn router(server: Arc<Shared>) -> Router {
    let add = |router: Router<Arc<Shared>>, route: &Route| router.route(route.0, (route.2)());
    let namespaced = NAMESPACED.iter().fold(Router::new(), add);
    let namespaced = namespaced.route_layer(from_fn_with_state(server.clone(), gate::authorize));
    let earlier = EARLIER.iter().fold(Router::new(), add);
    let earlier = earlier.route_layer(from_fn_with_state(server.clone(), gate::authorize_earlier));
    OPEN.iter()
        .fold(namespaced.merge(earlier), add)
        .fallback(about::nothing)
        .method_not_allowed_fallback(about::no_method)
        .layer(from_fn_with_state(server.clone(), gate::enter))
        .with_state(server)
}
