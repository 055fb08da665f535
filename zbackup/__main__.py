from zbackup.cli.main import run

run()
