//! Faults that are planted on purpose, by name, to see that the simulator finds them.
//!
//! `planted!("name")` is `false`, for the compiler too, in a program that was built without the simulator. Otherwise it
//! asks whether this thread has planted that one.

/// Whether a fault is planted here.
macro_rules! planted {
    ($name:literal) => {{
        #[cfg(any(test, feature = "sim"))]
        let is_planted = $crate::planted::is_planted($name);
        #[cfg(not(any(test, feature = "sim")))]
        let is_planted = false;
        is_planted
    }};
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Plants one fault on this thread, in place of another.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn plant(name: Option<&'static str>) {
    PLANTED.set(name);
}

#[cfg(any(test, feature = "sim"))]
pub(crate) fn is_planted(name: &'static str) -> bool {
    PLANTED.get() == Some(name)
}
