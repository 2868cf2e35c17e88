//! The broker as a whole: starts and stops its parts in order.
