//! Care of a data directory with the real program: every kind of damage, what is found, what is saved, copies.

mod cleaned;
mod copies;
mod damage;
mod disk;
mod exchange;
mod full_disk;
mod full_start;
mod held;
mod interrupted;
mod site;
mod table;
mod talk;
