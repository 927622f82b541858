//! GitHub's webhooks: a signed delivery is stored as it was received, then applied to the ledger.

pub mod apply; // brings the ledger to what all deliveries about a deployment or a review say
pub mod receive; // the deliveries: the route, the stored rows, their list
pub mod signature; // the request, with its signature checked
