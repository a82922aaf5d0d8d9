//! actors-api
