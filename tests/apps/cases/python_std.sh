# timeout: 120
# python3: subprocess, threading, multiprocessing, asyncio on pipes, mmap, sqlite3, signals, tempfile.
exec python3 /case/python_std.py
