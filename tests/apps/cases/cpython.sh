# timeout: 200
# A short slice of CPython's own test suite; cpython_long has the rest.
exec python3 /case/cpython_tests.py test_pipes test_fcntl test_mmap test_select test_poll test_glob \
  test_stat test_shutil test_errno test_pwd test_genericpath
