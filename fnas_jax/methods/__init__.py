"""Search methods, each a `SearchMethod` of pure functions; they know neither tasks nor disks."""
