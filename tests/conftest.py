pytest_plugins = [
    "tests.fix_archive",
    "tests.fix_postgres",
    "tests.fix_s3_proxy",
    "tests.fix_store",
    "tests.fix_swift",
    "tests.fix_writers",
]
