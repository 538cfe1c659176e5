"""`python -m subarch`, and with it `torchrun --nproc-per-node 2 -m subarch pretrain RUN`, is the command `subarch`."""

from subarch.cli.app import main

if __name__ == "__main__":
    main()
