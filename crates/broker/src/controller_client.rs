//! Asks of the active controller.
