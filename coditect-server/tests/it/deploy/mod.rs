//! What `deploy/` has, at work: nginx with the configuration that is shipped, before the real program and
//! a back end in the IDE's place; and the manifests, read.
//!
//! nginx is Debian's; where it isn't installed its tests say so and do nothing, unless `CODITECT_ALL_TOOLS`
//! is set, as it is where a change is checked.

mod health;
mod ide;

mod nginx;
mod proxy;
