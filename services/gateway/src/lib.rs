//! Admission, validation, one decode into columns, durable append, ack.
