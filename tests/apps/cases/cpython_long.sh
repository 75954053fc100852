# timeout: 650
# More than sixty modules of CPython's own test suite, failures compared with native.
exec python3 /case/cpython_tests.py test_os test_posix test_posixpath test_subprocess test_signal test_threading test_thread \
  test_threadsignals test_fork1 test_wait3 test_wait4 test_popen test_pty test_openpty test_ioctl test_fcntl test_mmap \
  test_select test_poll test_selectors test_file test_fileio test_io test_tempfile test_shutil \
  test_glob test_fnmatch test_pathlib test_stat test_filecmp test_zipfile test_tarfile test_gzip test_bz2 \
  test_lzma test_zlib test_dbm test_dbm_dumb test_shelve test_pickle test_json test_csv test_queue test_sched \
  test_time test_datetime test_resource test_pwd test_grp test_faulthandler \
  test_concurrent_futures test_unittest test_mailbox test_fileinput \
  test_genericpath test_errno test_gc test_memoryio test_buffer test_array test_struct test_hashlib test_random test_math \
  test_decimal test_contextlib test_weakref test_generators test_coroutines test_importlib test_cmd_line \
  test_script_helper 
