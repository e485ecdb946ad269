"""Pure functions on pixels: files in and out, MATLAB-exact resizing, luma, PSNR and SSIM."""
