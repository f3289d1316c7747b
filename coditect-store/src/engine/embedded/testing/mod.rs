//! Test harness of the engine: simulated disks, and the tests that run the whole engine on them.

#[cfg(test)]
mod endurance;
#[cfg(test)]
mod engine;
#[cfg(test)]
pub(super) mod faulty;
#[cfg(test)]
mod full_disk;
pub(in crate::engine) mod fuzzing;
#[cfg(test)]
mod outages;
#[cfg(test)]
#[cfg(feature = "schedules")]
mod schedules;
