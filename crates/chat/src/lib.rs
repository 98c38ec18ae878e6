pub mod content;
pub mod state;
pub mod store;
