//! Cells: the parts of the store, each with everything about some of the chats. A cell may be on a machine of its own.

use std::fmt;

use crate::{ChatId, Slot};

/// The number of cells of a store: a power of two up to [`Self::MAX`]. It is chosen when the store is made, and never
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cells(u16);

/// One cell of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell(u16);

impl Cells {
    /// The number of cells if the operator chooses none.
    pub const DEFAULT: Self = Self(4);
    /// The largest number of cells. Each has 16 slots then, and two connections of each chat node.
    pub const MAX: u16 = 256;

    /// Returns the number of cells `count`, or `None` if a store cannot have that many.
    pub fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= Self::MAX).then_some(Self(count))
    }

    /// Returns the number.
    pub fn count(self) -> u16 {
        self.0
    }

    /// Returns the cell of a chat.
    pub fn of_chat(self, chat: ChatId) -> Cell {
        self.of(Slot::of_chat(chat))
    }

    /// Returns the cell of a slot. All chats of a slot are in one cell.
    pub fn of(self, slot: Slot) -> Cell {
        Cell(slot.number() % self.0)
    }

    /// Returns all cells, in ascending order.
    pub fn all(self) -> impl Iterator<Item = Cell> {
        (0..self.0).map(Cell)
    }
}

impl Cell {
    /// The cell that every store has.
    pub const FIRST: Self = Self(0);

    /// Returns the cell's number, from 0 on.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Returns the name of the cell's schema in Postgres, for example `cell_03`.
    pub fn schema(self) -> String {
        format!("cell_{:02}", self.0)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cell {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_a_power_of_two_of_cells() {
        let accepted: Vec<u16> = (0..=1024).filter(|count| Cells::new(*count).is_some()).collect();
        assert_eq!(accepted, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
    }

    #[test]
    fn each_cell_has_as_many_slots_as_any_other() {
        let cells = Cells::new(64).unwrap();
        for cell in cells.all() {
            assert_eq!(Slot::all().filter(|slot| cells.of(*slot) == cell).count(), 64);
        }
        assert_eq!(Cell(3).schema(), "cell_03");
        assert_eq!(Cell(200).schema(), "cell_200");
    }
}
