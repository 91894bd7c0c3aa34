"""Every launcher's variables say which process this is."""

import pytest

from lavic.errors import UserError
from lavic.files.launched import this_process

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
PMI = {"PMI_RANK": "2", "PMI_SIZE": "6", "MPI_LOCALRANKID": "0"}
SLURM = {"SLURM_PROCID": "7", "SLURM_NTASKS": "9", "SLURM_LOCALID": "3"}
BATCH_STEP = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}  # what mpirun within sbatch inherits


@pytest.mark.parametrize(
    ("env", "process"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (5, 8, 1)),
        (OPEN_MPI, (3, 4, 1)),
        (PMI, (2, 6, 0)),
        (SLURM, (7, 9, 3)),
        (BATCH_STEP | OPEN_MPI, (3, 4, 1)),
        (BATCH_STEP | PMI, (2, 6, 0)),
        (BATCH_STEP | TORCHRUN, (5, 8, 1)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 1)),
        ({"RANK": "", "SLURM_PROCID": "1"}, (1, 2, 0)),
    ],
)
def test_each_launcher_is_read(env: dict[str, str], process: tuple[int, int, int]) -> None:
    assert this_process(env) == process


def test_a_variable_that_is_no_number_is_told() -> None:
    with pytest.raises(UserError, match="RANK is abc, which is no number"):
        this_process({"RANK": "abc", "WORLD_SIZE": "2"})
