//! What every disk does alike; run against each implementation.

use super::{Disk, DiskErrorKind, DiskFile, Listed};

/// Asserts the contract on an empty disk.
pub(crate) fn holds<D: Disk>(disk: &D) {
    disk.create_directory("d").unwrap();
    disk.create_directory("d").unwrap();
    assert_eq!(disk.list("d").unwrap(), Vec::new());
    assert_eq!(disk.open("d/a").err().unwrap().kind, DiskErrorKind::NotFound);
    assert!(!disk.exists("d/a").unwrap());

    let file = disk.create("d/b").unwrap();
    assert!(disk.create("d/b").is_err(), "create never opens what is there");
    file.write_at(0, b"hello").unwrap();
    file.write_at(8, b"world").unwrap();
    assert_eq!(file.size().unwrap(), 13);
    let mut buffer = [0xff; 13];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"hello\0\0\0world", "a hole reads as zeros");
    assert!(file.read_at(1, &mut buffer).is_err(), "a read over the end is an error");
    file.sync().unwrap();
    file.set_size(4).unwrap();
    file.set_size(6).unwrap();
    let mut buffer = [0xff; 6];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"hell\0\0");

    let long = disk.create("d/c").unwrap();
    long.write_at(0, &[7; 12_288]).unwrap();
    long.release(4096, 4096).unwrap();
    let mut content = vec![0; 12_288];
    long.read_at(0, &mut content).unwrap();
    assert!(content[..4096].iter().chain(&content[8192..]).all(|byte| *byte == 7), "only what was named");
    assert!(content[4096..8192].iter().all(|byte| *byte == 0), "and that reads as zeros");
    assert_eq!(long.size().unwrap(), 12_288);
    disk.remove("d/c").unwrap();

    disk.create("d/a").unwrap().write_at(0, b"old").unwrap();
    let names = |disk: &D| disk.list("d").unwrap().into_iter().map(|file| file.name).collect::<Vec<_>>();
    assert_eq!(names(disk), ["a", "b"]);
    assert_eq!(disk.list("d").unwrap()[1], Listed { name: "b".to_owned(), size_bytes: 6 });
    disk.rename("d/b", "d/a").unwrap();
    disk.sync_directory("d").unwrap();
    assert_eq!(names(disk), ["a"]);
    let mut buffer = [0; 4];
    disk.open("d/a").unwrap().read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"hell");
    disk.remove("d/a").unwrap();
    assert_eq!(disk.remove("d/a").err().unwrap().kind, DiskErrorKind::NotFound);
    assert_eq!(disk.list("nowhere").err().unwrap().kind, DiskErrorKind::NotFound);
    assert!(disk.free_bytes().unwrap() > 0);
}
