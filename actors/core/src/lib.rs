//! actors-core
