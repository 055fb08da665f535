pytest_plugins = [
    "tests.fix_archive",
    "tests.fix_clock",
    "tests.fix_disk",
    "tests.fix_postgres",
    "tests.fix_s3_proxy",
    "tests.fix_store",
    "tests.fix_rclone",
    "tests.fix_swift",
    "tests.fix_whole",
    "tests.fix_writers",
    "tests.fix_zitadel",
    "tests.fix_damage",
]
