//! Load per node and plans of small moves.
