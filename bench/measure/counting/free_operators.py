"""Operators without a counted product; every other operator without a formula is reported as unknown.

Three kinds are recognised by their PyTorch tags: views, pointwise operators, copies of views. The rest is listed by
name. Left out on purpose: Fourier transforms, linear algebra, pairwise distances, and everything not yet checked.
"""

import functools
from typing import Any

import torch

from bench.measure.counting.dispatch import is_view

_BY_KIND = {
    "makes a tensor": """
        arange bartlett_window blackman_window empty empty_like empty_permuted empty_strided eye fft_fftfreq
        fft_rfftfreq from_file full full_like hamming_window hann_window kaiser_window linspace logspace new_empty
        new_empty_strided new_full new_ones new_zeros ones ones_like range scalar_tensor tril_indices triu_indices
        vander zeros zeros_like _efficientzerotensor _new_zeros_with_same_feature_meta""",
    "moves or copies values": """
        alias_copy block_diag cat channel_shuffle clone col2im combinations constant_pad_nd contiguous copy
        copy_from_and_resize dequantize detach diag_embed diagonal_scatter fill flip gather im2col index index_add
        index_copy index_fill index_put index_reduce index_select int_repr item lift lift_fresh lift_fresh_copy
        masked_scatter masked_select narrow_copy native_channel_shuffle nonzero nonzero_static
        pack_padded_sequence pixel_shuffle
        pixel_unshuffle put quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic reflection_pad1d
        reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
        replication_pad3d resize resize_as resize_output roll rot90 scatter scatter_add scatter_reduce select_scatter
        set set_data slice_scatter as_strided_scatter split_with_sizes_copy stack take to_dense to_mkldnn
        to_sparse _to_sparse _to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_sparse_bsc sparse_mask
        to_padded_tensor tril triu unfold unsafe_split unsafe_split_with_sizes zero _chunk_cat _conj_copy _copy_from
        _copy_from_and_resize _foreach_clone _foreach_copy _foreach_zero _index_put_impl _lazy_clone _mkldnn_reshape
        _mkldnn_transpose _neg_view_copy _nested_from_padded _pack_padded_sequence _pin_memory _reshape_alias_copy
        _reshape_copy _stack _to_copy _to_dense _unsafe_index _unsafe_index_put _unsafe_masked_index
        _unsafe_masked_index_put_accumulate _unsafe_view _make_per_channel_quantized_tensor
        _make_per_tensor_quantized_tensor _use_cudnn_rnn_flatten_weight _cudnn_rnn_flatten_weight
        _embedding_bag _embedding_bag_forward_only _embedding_bag_per_sample_weights
        mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight embedding
        embedding_renorm unique_consecutive unique_dim unique_dim_consecutive _unique _unique2 view_as_complex_copy
        view_as_real_copy complex polar""",
    "reduces, sorts or compares": """
        all allclose amax amin aminmax any argmax argmin argsort bincount bucketize count_nonzero cummax cummin cumprod
        cumsum dist equal hash_tensor histc histogram isin is_same_size kthvalue linalg_vector_norm linalg__powsum
        logcumsumexp logsumexp max mean median min mode nanmedian nansum native_norm norm prod renorm searchsorted
        segment_reduce sort std std_mean sum topk trace var var_mean _aminmax _cummax_helper _cummin_helper
        _foreach_max _foreach_norm _foreach_powsum _is_all_true _is_any_true _logcumsumexp _local_scalar_dense""",
    "is pointwise in all but its tag": """
        addr bernoulli binomial cauchy exponential floor_divide geometric glu hardswish isclose linalg_cross log_normal
        log_sigmoid_forward multinomial normal normal_functional poisson prelu rand rand_like randint randint_like
        randn randn_like random randperm rrelu_with_noise rrelu_with_noise_functional uniform native_dropout dropout
        _add_relu _fused_dropout _masked_scale _prelu_kernel _sample_dirichlet _dirichlet_grad _standard_gamma
        _standard_gamma_grad _philox_key_fold_in _philox_key_split _philox_normal _philox_randint _philox_uniform
        _thnn_fused_gru_cell _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _transform_bias_rescale_qkv
        _fused_adagrad _fused_adam _fused_adamw _fused_sgd _amp_foreach_non_finite_check_and_unscale
        _amp_update_scale log_sigmoid glu_jvp
        fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
        _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
        _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper
        _fused_moving_avg_obs_fq_helper_functional""",
    "is softmax or a loss": """
        binary_cross_entropy binary_cross_entropy_with_logits huber_loss log_softmax mse_loss multi_margin_loss
        multilabel_margin_loss_forward multilabel_margin_loss nll_loss nll_loss_forward nll_loss2d nll_loss2d_forward
        smooth_l1_loss soft_margin_loss softmax _ctc_loss _cudnn_ctc_loss _log_softmax _masked_softmax _safe_softmax
        _softmax _nested_tensor_softmax_with_shape _use_cudnn_ctc_loss _use_miopen_ctc_loss _fused_sdp_choice""",
    "normalises": """
        batch_norm batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats
        batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats cudnn_batch_norm miopen_batch_norm
        native_batch_norm native_group_norm native_layer_norm quantized_batch_norm _batch_norm_no_update
        _batch_norm_with_update _batch_norm_with_update_functional _fused_rms_norm _native_batch_norm_legit
        _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _weight_norm_interface""",
    "pools or interpolates": """
        adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d
        cudnn_grid_sampler fractional_max_pool2d fractional_max_pool3d grid_sampler_2d grid_sampler_3d max_pool2d
        max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mkldnn_adaptive_avg_pool2d
        mkldnn_max_pool2d mkldnn_max_pool3d quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d
        upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
        upsample_nearest3d upsample_trilinear3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d
        adaptive_avg_pool3d _grid_sampler_2d_cpu_fallback _upsample_bicubic2d_aa _upsample_bilinear2d_aa
        _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d""",
    "asks or asserts": """
        dense_dim is_coalesced is_complex is_contiguous is_floating_point is_nonzero is_non_overlapping_and_dense
        is_pinned is_set_to is_strides_like_format numel q_scale q_zero_point qscheme record_stream size sparse_dim
        storage_offset stride dim sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size
        sym_storage_offset sym_stride q_per_channel_axis q_per_channel_scales
        q_per_channel_zero_points _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
        _functional_assert_scalar _functional_sym_constrain_range _functional_sym_constrain_range_for_size
        _has_same_storage_numel _linalg_check_errors _nnz _print""",
}
_FREE = {f"aten::{name}" for names in _BY_KIND.values() for name in names.split()} | {
    "torchvision::nms",
    "torchvision::ps_roi_align",
    "torchvision::ps_roi_pool",
    "torchvision::roi_align",
    "torchvision::roi_pool",
}
_FREE_TAGS = {torch.Tag.pointwise, torch.Tag.view_copy, torch.Tag.inplace_view}
_ENDINGS = ("_backward", "_backward_data", "_dense_backward", "_copy")


def costs_nothing(*operators: str) -> None:
    """Declare that `operators` (`namespace::name`) contain no counted product."""
    _FREE.update(operators)
    is_free.cache_clear()


@functools.cache
def is_free(operator: str) -> bool:
    """Return whether `operator` (`namespace::name`) contains no counted product; its gradient then has none either."""
    # Markers for the profiler and collectives between processes compute nothing that is counted.
    if operator.startswith(("prim::", "prims::", "profiler::", "c10d::", "_c10d_functional::", "aten::_foreach_")):
        return operator != "aten::_foreach_mm"
    return any(name in _FREE or _is_declared_free(name) for name in _related(operator))


def _related(operator: str) -> set[str]:
    """Return the name, the name without the in-place mark, and the operators it is the gradient or copy of."""
    plain = operator.removesuffix("_")
    bases = {plain.removesuffix(ending) for ending in _ENDINGS}
    return {operator, plain, *bases, *(base.replace("::_", "::") for base in bases if base != plain)}


def _is_declared_free(operator: str) -> bool:
    namespace, _, name = operator.partition("::")
    packet: Any = getattr(getattr(torch.ops, namespace), name, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if hasattr(packet, "overloads") else []
    return any(_FREE_TAGS & set(overload.tags) or is_view(overload) for overload in overloads)
