//! Tables, schemas, membership and the versioned placement map.
