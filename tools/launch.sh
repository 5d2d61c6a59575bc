# Sourced by dist_test.sh and dist_train.sh: runs a tool in several processes with torchrun.
#
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT. PYTHON names the interpreter. On a
# machine without CUDA the processes share the CPU and talk gloo.

launch() {  # PROCESSES TOOL [arguments of the tool]
    exec "${PYTHON:-python}" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$1" \
        "$(dirname "${BASH_SOURCE[0]}")/$2" "${@:3}"
}
