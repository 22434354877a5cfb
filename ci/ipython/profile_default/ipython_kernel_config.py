# Progress bars go to the terminal that started the run, not into the notebook:
# without this, ipykernel captures file descriptor 2 as well.
c.IPKernelApp.capture_fd_output = False  # noqa: F821 (IPython provides c)
